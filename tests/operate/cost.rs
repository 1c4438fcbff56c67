//! What the operator's surface costs, in processor time, which a busy machine does not change: scrapes, and everything
//! at rest. The bounds are those of `docs/scaling.md`, times three for the development build.

use super::elements::Elements;
use super::page::{get, get_with, json};
use crate::process::Registrar;
use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The development build is not optimised as much, its crates not at all.
const BUILD: u32 = if cfg!(debug_assertions) { 3 } else { 1 };

/// Processor time that the process's first thread has had: the loop's.
fn used(registrar: &Registrar) -> Duration {
    let path = format!("/proc/{0}/task/{0}/schedstat", registrar.process.id());
    let text = fs::read_to_string(path).expect("schedstat");
    Duration::from_nanos(text.split(' ').next().expect("a number").parse().expect("a number"))
}

/// Turns that the loop has had, as the metrics say.
fn turns(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("rserpool_turn_seconds_count "));
    count.expect("a count of turns").parse().expect("a number")
}

/// Each name is described once, its samples stand together behind that, and no series is there twice.
fn is_whole(text: &str) {
    let (mut names, mut series) = (HashSet::new(), HashSet::new());
    let mut now = "";
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(described) = line.strip_prefix("# HELP ") {
            now = described.split(' ').next().expect("a name");
            assert!(names.insert(now), "{now} is described twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(now), "{line} stands behind {now}");
            assert!(series.insert(line.rsplit_once(' ').expect("a value").0), "{line} is there twice");
        }
    }
}

/// Nobody else's keep-alives, lookups and tables while a scrape is measured. It is made in pieces, a turn of the loop
/// each, so that nobody waits for the whole.
#[test]
fn a_scrape_of_a_thousand_pools_is_cheap() {
    let registrar = Registrar::start(&super::page::PATIENT);
    let mut elements = Elements::connect(registrar.asap);
    for number in 0..1000 {
        elements.register_one(format!("pool number {number}").as_bytes(), 1);
    }
    for accept in ["text/plain", "application/openmetrics-text"] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        let (_, text) = get_with(registrar.http, &request);
        assert_eq!(text.lines().filter(|line| line.starts_with("rserpool_pool_elements{")).count(), 1000);
        is_whole(&text);
        const SCRAPES: u32 = 20;
        let before = used(&registrar);
        let texts: Vec<String> = (0..SCRAPES).map(|_| get_with(registrar.http, &request).1).collect();
        let each = (used(&registrar) - before) / SCRAPES;
        let fewest = texts.windows(2).map(|pair| turns(&pair[1]) - turns(&pair[0])).min().expect("scrapes");
        println!(
            "a scrape of 1000 pools as {accept}, {} KiB: {each:?} of the loop in {fewest} turns or more",
            text.len() / 1024
        );
        assert!(each < Duration::from_millis(20) * BUILD, "{each:?}");
        // Six names, each of them in pieces of 256 pools, and what collects those.
        assert!(fewest >= 7 * 1000_u64.div_ceil(256), "{fewest} turns");
        let mean = each / u32::try_from(fewest).expect("a few");
        assert!(mean < Duration::from_millis(10), "{mean:?} a turn");
    }
}

/// 100 000 elements, a page that is looked at, a reader of events, a scrape every 5 s: together.
#[test]
fn at_rest_it_costs_hardly_anything() {
    const ELEMENTS: u32 = 100_000;
    const LINKS: u32 = 10;
    let registrar = Registrar::start(&["-config=off"]);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..LINKS)
        .map(|link| {
            let (asap, stop) = (registrar.asap, stop.clone());
            std::thread::spawn(move || {
                let mut elements = Elements::connect(asap);
                elements.register_many(format!("pool{link}").as_bytes(), ELEMENTS / LINKS);
                // Keep-alives are answered until the end.
                while !stop.load(Ordering::Relaxed) {
                    elements.answer(Duration::from_millis(100));
                }
            })
        })
        .collect();
    // A busy machine takes its time for that.
    let begin = Instant::now();
    while json(registrar.http, "/api/status")["element_count"] != ELEMENTS {
        assert!(begin.elapsed() < Duration::from_secs(300), "not registered within 300 s");
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut events = super::page::Events::open(registrar.http, "");
    events.next();
    std::thread::sleep(Duration::from_secs(2));
    let (before, begin) = (used(&registrar), Instant::now());
    let mut seconds = 0;
    while begin.elapsed() < Duration::from_secs(15) {
        if seconds % 3 == 0 {
            for path in
                ["/api/status", "/api/pools?limit=50&q=", "/api/peers", "/api/elements?limit=50&pool=pool1"]
            {
                json(registrar.http, path);
            }
        }
        if seconds % 5 == 0 {
            get(registrar.http, "/metrics");
        }
        seconds += 1;
        std::thread::sleep(Duration::from_secs(1));
    }
    let share = (used(&registrar) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("at rest with {ELEMENTS} elements, page, events and scrapes: {:.2} % of a core", share * 100.0);
    assert_eq!(json(registrar.http, "/api/status")["element_count"], ELEMENTS, "all are there still");
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("elements"));
    assert!(share < 0.02 * f64::from(BUILD), "{share}");
}
