//! The real network: registrars, elements and users as processes with addresses of their own, which
//! find each other by multicast without any configuration, and lose each other in every way.
#![allow(clippy::disallowed_methods)]

#[path = "../common/examples.rs"]
mod examples;
mod lab;
#[path = "../common/skip.rs"]
mod skip;

use examples::build_examples;
use lab::{Family, Lab, Process, View, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For what must happen: long enough for a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// A registrar that was cut off is one of all again after this, with time to spare on a busy machine.
const RECONCILED: Duration = Duration::from_secs(5);
/// Long enough for the faults to happen meanwhile, at the rate of a session.
const SIZE: usize = 32 << 20;
const RATE: &str = "-rate=1500000";

/// One of the C examples.
fn example(lab: &Lab, name: &str) -> PathBuf {
    build_examples(&lab.folder);
    lab.folder.join(name)
}

struct Registrar {
    host: usize,
    process: Process,
}

impl Registrar {
    fn start(lab: &Lab, host: usize) -> Registrar {
        let program = Path::new(env!("CARGO_BIN_EXE_rspregistrar"));
        let arguments = ["--http=127.0.0.1:8080", "--loglevel=debug", "--logcolor=off"];
        let process = lab.start(host, program, &arguments, &format!("registrar{host}.log"));
        Registrar { host, process }
    }
}

struct Server {
    host: usize,
    process: Process,
    id: String,
}

impl Server {
    fn start(lab: &Lab, host: usize) -> Server {
        let log = format!("server{host}.log");
        let before = lab.log(&log).matches("serving ").count();
        let files = format!("-directory={}", lab.folder.join("files").display());
        let arguments = ["-pool=Files", &files, RATE];
        let process = lab.start(host, &example(lab, "file_server"), &arguments, &log);
        let (id, _) = wait_for("a server registers", SOON, || {
            let text = lab.log(&log);
            let line = text.lines().filter(|line| line.starts_with("serving ")).nth(before)?.to_owned();
            let (_, rest) = line.split_once(" as ")?;
            Some(rest.get(..10)?.to_owned())
        });
        Server { host, process, id }
    }
}

/// Waits until the registrars on these hosts serve, know each other and exactly these elements, and
/// agree in everything, each element having one of them as its home.
fn agreed(lab: &Lab, what: &str, hosts: &[usize], servers: &[&Server]) -> (View, Duration) {
    let mut ids: Vec<&str> = servers.iter().map(|server| server.id.as_str()).collect();
    ids.sort_unstable();
    agreed_if(lab, what, hosts, |found| found == ids)
}

/// The same for so many elements.
fn agreed_on(lab: &Lab, what: &str, hosts: &[usize], elements: usize) -> (View, Duration) {
    agreed_if(lab, what, hosts, |found| found.len() == elements)
}

fn agreed_if(
    lab: &Lab,
    what: &str,
    hosts: &[usize],
    right_ids: impl Fn(&[&str]) -> bool,
) -> (View, Duration) {
    wait_for(what, SOON, || {
        let views: Vec<View> = hosts.iter().map_while(|&host| lab.view(host)).collect();
        let first = views.first()?;
        let alive: Vec<&str> = views.iter().map(|view| view.registrar.as_str()).collect();
        let right = views.len() == hosts.len()
            && views.iter().all(|view| {
                view.serving && view.peers.len() == hosts.len() - 1 && view.elements == first.elements
            })
            && right_ids(&first.ids())
            && first.homes().iter().all(|home| alive.contains(home));
        right.then(|| first.clone())
    })
}

/// Which server the client hears now.
fn in_use(lab: &Lab, servers: &[Server]) -> usize {
    let said = lab.log("client.log");
    let last = said.lines().rfind(|line| line.starts_with("failover ")).and_then(|line| {
        let id = line.split_whitespace().find_map(|field| field.strip_prefix("to="))?;
        servers.iter().position(|server| server.id == id)
    });
    last.unwrap_or_else(|| {
        let asked = |server: &Server| lab.log(&format!("server{}.log", server.host)).contains("from byte");
        wait_for("a server is asked", SOON, || servers.iter().position(asked)).0
    })
}

/// Does something to the server in use, and waits until another one serves the client.
fn strike(lab: &Lab, what: &str, servers: &mut [Server], act: impl FnOnce(&mut Server)) -> usize {
    let arrived = || fs::metadata(lab.folder.join("copy")).map_or(0, |copy| copy.len());
    let before = arrived();
    wait_for("data flows", SOON, || (arrived() > before).then_some(()));
    let failovers = || lab.log("client.log").lines().filter(|line| line.starts_with("failover ")).count();
    let count = failovers();
    let victim = in_use(lab, servers);
    act(&mut servers[victim]);
    let (_, time) = wait_for(what, SOON, || (failovers() > count).then_some(()));
    println!("{what}: the client goes on after {time:?}");
    victim
}

#[test]
fn a_download_survives_the_network() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts: Vec<usize> = (0..7).map(|_| lab.host()).collect();
    let bytes: Vec<u8> = {
        let mut rng = fastrand::Rng::with_seed(5353);
        (0..SIZE / 8).flat_map(|_| rng.u64(..).to_be_bytes()).collect()
    };
    fs::create_dir_all(lab.folder.join("files")).expect("folder");
    fs::write(lab.folder.join("files/file"), &bytes).expect("file");

    let mut registrars: Vec<Registrar> =
        hosts[..3].iter().map(|&host| Registrar::start(&lab, host)).collect();
    let (_, time) = agreed(&lab, "registrars find each other", &hosts[..3], &[]);
    println!("three registrars found each other in {time:?}");
    let mut servers: Vec<Server> = hosts[3..6].iter().map(|&host| Server::start(&lab, host)).collect();
    let all = |servers: &[Server], what: &str, hosts: &[usize]| {
        let servers: Vec<&Server> = servers.iter().collect();
        let (view, time) = agreed(&lab, what, hosts, &servers);
        println!("{what}: {time:?}");
        view
    };
    let view = all(&servers, "registrars agree on three servers", &hosts[..3]);

    let to = lab.folder.join("copy");
    let arguments = ["-pool=Files", "-timeout=80", "-idle=1500", "file", to.to_str().expect("path")];
    let mut client = lab.start(hosts[6], &example(&lab, "file_client"), &arguments, "client.log");

    // The home of a server dies: another one takes over.
    let home = view.homes()[0].to_owned();
    let is_home = |lab: &Lab, host: usize| lab.view(host).is_some_and(|view| view.registrar == home);
    let dead = hosts[..3].iter().position(|&host| is_home(&lab, host)).expect("a home");
    registrars[dead].process.kill();
    let survivors: Vec<usize> = hosts[..3].iter().copied().filter(|&host| host != hosts[dead]).collect();
    all(&servers, "a registrar was killed", &survivors);
    registrars[dead] = Registrar::start(&lab, hosts[dead]);
    all(&servers, "it came back with a new ID", &hosts[..3]);

    let victim = strike(&lab, "a server was killed", &mut servers, |server| server.process.kill());
    let rest: Vec<&Server> = servers.iter().filter(|server| server.id != servers[victim].id).collect();
    agreed(&lab, "the killed server is gone everywhere", &hosts[..3], &rest);
    servers[victim] = Server::start(&lab, servers[victim].host);
    let victim = strike(&lab, "a server was stopped", &mut servers, |server| {
        server.process.signal(libc::SIGSTOP);
    });
    let rest: Vec<&Server> = servers.iter().filter(|server| server.id != servers[victim].id).collect();
    agreed(&lab, "the stopped server is gone everywhere", &hosts[..3], &rest);
    servers[victim].process.signal(libc::SIGCONT);
    all(&servers, "it goes on and is back", &hosts[..3]);
    let victim = strike(&lab, "a server was cut off", &mut servers, |server| lab.cut(server.host));
    lab.heal(servers[victim].host);
    all(&servers, "it was plugged in again", &hosts[..3]);

    registrars[0].process.signal(libc::SIGSTOP);
    all(&servers, "a registrar was stopped", &hosts[1..3]);
    registrars[0].process.signal(libc::SIGCONT);
    all(&servers, "it goes on", &hosts[..3]);
    lab.cut(registrars[1].host);
    all(&servers, "a registrar was cut off", &[hosts[0], hosts[2]]);
    lab.heal(registrars[1].host);
    all(&servers, "it was plugged in again", &hosts[..3]);

    let (status, _) = wait_for("the download ends", Duration::from_secs(60), || client.status());
    assert_eq!(status, 0, "{}", lab.log("client.log"));
    assert!(fs::read(&to).expect("copy") == bytes, "the copy differs\n{}", lab.log("client.log"));
    all(&servers, "all agree in the end", &hosts[..3]);
}

/// Registrars and a server that are there before their network is, and what they do when it goes.
/// Waits until a registrar has the one element at this address.
fn is_at(lab: &Lab, registrar: usize, address: &str) {
    let (_, time) = wait_for(&format!("the element is at {address}"), SOON, || {
        let view = lab.view(registrar)?;
        let all = view.elements.values().map(|element| element["transport"].to_string());
        let all: Vec<String> = all.collect();
        (all.len() == 1 && all[0].contains(&format!("{address}:"))).then_some(())
    });
    println!("a registrar has the element at {address} after {time:?}");
}

#[test]
fn interfaces_that_come_and_go_are_followed() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts: Vec<usize> = (0..3).map(|_| lab.bare_host()).collect();
    fs::create_dir_all(lab.folder.join("files")).expect("folder");
    let _registrars: Vec<Registrar> = hosts[..2].iter().map(|&host| Registrar::start(&lab, host)).collect();
    for &host in &hosts[..2] {
        agreed(&lab, "without a network each serves alone", &[host], &[]);
    }
    // It waits for a registrar.
    let files = format!("-directory={}", lab.folder.join("files").display());
    let program = example(&lab, "file_server");
    let mut server = lab.start(hosts[2], &program, &["-pool=Files", &files], "server.log");
    for &host in &hosts {
        lab.plug_in(host, Family::V4);
    }
    let (_, time) = agreed_on(&lab, "they find each other", &hosts[..2], 1);
    println!("plugged in: all know each other after {time:?}");
    // It began with nothing but a loopback address.
    is_at(&lab, hosts[0], "10.77.0.3");
    lab.renumber(hosts[2], "10.77.0.99");
    is_at(&lab, hosts[0], "10.77.0.99");
    is_at(&lab, hosts[1], "10.77.0.99");
    assert_eq!(server.status(), None, "{}", lab.log("server.log"));
    lab.pull_out(hosts[1]);
    let (_, time) = agreed_on(&lab, "one registrar's interface vanished", &hosts[..1], 1);
    println!("an interface vanished: {time:?}");
    lab.plug_in(hosts[1], Family::V4);
    let (_, time) = agreed_on(&lab, "it is there again", &hosts[..2], 1);
    println!("it is there again: {time:?}");
}

#[test]
fn ipv6_alone_needs_no_configuration_either() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts: Vec<usize> = (0..4).map(|_| lab.bare_host()).collect();
    for &host in &hosts {
        lab.plug_in(host, Family::V6);
    }
    let bytes: Vec<u8> = (0..1u32 << 20).flat_map(u32::to_be_bytes).collect();
    fs::create_dir_all(lab.folder.join("files")).expect("folder");
    fs::write(lab.folder.join("files/file"), &bytes).expect("file");
    let _registrars: Vec<Registrar> = hosts[..2].iter().map(|&host| Registrar::start(&lab, host)).collect();
    let (_, time) = agreed(&lab, "registrars find each other", &hosts[..2], &[]);
    println!("two registrars found each other over IPv6 in {time:?}");
    let server = Server::start(&lab, hosts[2]);
    agreed(&lab, "both know the server", &hosts[..2], &[&server]);
    let to = lab.folder.join("copy");
    let arguments = ["-pool=Files", "-timeout=60", "file", to.to_str().expect("path")];
    let mut client = lab.start(hosts[3], &example(&lab, "file_client"), &arguments, "client.log");
    let (status, _) = wait_for("the download ends", Duration::from_secs(60), || client.status());
    assert_eq!(status, 0, "{}", lab.log("client.log"));
    assert!(fs::read(&to).expect("copy") == bytes, "the copy differs");
}

/// Cut off for long enough to be taken over, again and again: who comes back is soon one of all.
#[test]
fn a_registrar_that_returns_is_reconciled_soon() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts: Vec<usize> = (0..6).map(|_| lab.host()).collect();
    fs::create_dir_all(lab.folder.join("files")).expect("folder");
    let _registrars: Vec<Registrar> = hosts[..3].iter().map(|&host| Registrar::start(&lab, host)).collect();
    agreed(&lab, "registrars find each other", &hosts[..3], &[]);
    let rounds = std::env::var("RSP_ROUNDS").map_or(6, |text| text.parse().expect("a number"));
    let _servers: Vec<Server> = hosts[3..].iter().map(|&host| Server::start(&lab, host)).collect();
    for round in 0..rounds {
        let cut = hosts[round % 3];
        agreed_on(&lab, "all know all", &hosts[..3], 3);
        let others: Vec<usize> = hosts[..3].iter().copied().filter(|&host| host != cut).collect();
        lab.cut(cut);
        let (_, time) = agreed_on(&lab, "a registrar was cut off", &others, 3);
        std::thread::sleep(Duration::from_millis(700 * (round as u64 % 9)));
        lab.heal(cut);
        let (_, back) = agreed_on(&lab, "it was plugged in again", &hosts[..3], 3);
        println!("registrar {cut} cut off: {time:?}; plugged in again: {back:?}");
        assert!(back < RECONCILED, "not within {RECONCILED:?}");
    }
}
