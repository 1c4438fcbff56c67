//! `rspctl pools`, `elements`, `peers`, `status`, `events`, `mib`, `drain` and what else an operator does, through
//! the page of a registrar.

use super::handle;
use super::page::{Token, Where, escaped};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How answers are shown.
#[derive(Args, Clone)]
pub struct Show {
    #[command(flatten)]
    at: Where,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Again and again, every SECONDS [default: 2]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// What there is to see.
#[derive(Subcommand)]
pub enum See {
    /// The pools, and those that became empty lately.
    Pools {
        /// Only those whose handle has this in it
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        #[command(flatten)]
        show: Show,
    },
    /// The elements of a pool.
    Elements {
        /// Pool handle, as it is printed
        pool: OsString,
        #[command(flatten)]
        show: Show,
    },
    /// The other registrars.
    Peers {
        #[command(flatten)]
        show: Show,
    },
    /// The registrar at a glance.
    Status {
        #[command(flatten)]
        show: Show,
    },
    /// The objects of the RSerPool MIB (RFC 5525).
    Mib {
        #[command(flatten)]
        show: Show,
    },
    /// What happens, as it happens.
    Events {
        #[command(flatten)]
        at: Where,
        /// JSON, an object a line
        #[arg(long)]
        json: bool,
        /// End after so many
        #[arg(long, value_name = "N")]
        count: Option<usize>,
    },
}

/// An element.
#[derive(Args)]
pub struct Element {
    /// Pool handle, as it is printed
    pool: OsString,
    /// Identifier, decimal or 0xHEX
    id: String,
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    token: Token,
}

/// What there is to change. Needs the registrar's --httptoken.
#[derive(Subcommand)]
pub enum Act {
    /// Let an element keep its users and get no new ones, whatever registrar they ask.
    Drain {
        #[command(flatten)]
        element: Element,
    },
    /// Let a drained element get users again.
    Undrain {
        #[command(flatten)]
        element: Element,
    },
    /// Give an element other policy values than it says itself.
    Set {
        #[command(flatten)]
        element: Element,
        /// Weight
        #[arg(long)]
        weight: Option<u32>,
        /// Priority
        #[arg(long)]
        priority: Option<u32>,
        /// Load, 0 to 4294967295
        #[arg(long)]
        load: Option<u32>,
        /// Load added by each selection
        #[arg(long)]
        degradation: Option<u32>,
        /// The values that it says itself, again, from its next re-registration on
        #[arg(long, conflicts_with_all = ["weight", "priority", "load", "degradation"])]
        own: bool,
    },
    /// Take an element out of its pool. One that is alive comes back with its next re-registration.
    Deregister {
        #[command(flatten)]
        element: Element,
    },
    /// Drain all elements that are served from a host, before it is worked on.
    Maintenance {
        /// The host's address
        address: std::net::IpAddr,
        /// Undrain them again
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        token: Token,
    },
}

/// Shows something.
pub fn see(see: &See) -> ExitCode {
    let show = match see {
        See::Events { at, json, count } => return end("events", events(at, *json, *count)),
        See::Pools { show, .. }
        | See::Elements { show, .. }
        | See::Peers { show }
        | See::Status { show }
        | See::Mib { show } => show,
    };
    let (name, result) = match show.watch {
        None => (see.name(), see.once(show, &mut io::stdout().lock())),
        Some(seconds) => (see.name(), watch(see, show, Duration::from_secs(seconds))),
    };
    end(name, result)
}

/// Ends with what went wrong, if anything did.
fn end(name: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Err(wrong) => {
            let _ = writeln!(io::stderr(), "rspctl: {name}: {wrong}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever was reading has seen enough: no failure.
fn written(result: io::Result<()>) -> Result<(), String> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => String::new(),
        _ => error.to_string(),
    })
}

fn watch(see: &See, show: &Show, pause: Duration) -> Result<(), String> {
    loop {
        let mut text = Vec::new();
        if let Err(wrong) = see.once(show, &mut text) {
            text = format!("{wrong}\n").into_bytes();
        }
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            written(out.write_all(b"\x1b[H\x1b[2J"))?;
        }
        written(out.write_all(&text).and_then(|()| out.flush()))?;
        drop(out);
        std::thread::sleep(pause);
    }
}

impl See {
    fn name(&self) -> &'static str {
        match self {
            See::Pools { .. } => "pools",
            See::Elements { .. } => "elements",
            See::Peers { .. } => "peers",
            See::Status { .. } => "status",
            See::Mib { .. } => "mib",
            See::Events { .. } => "events",
        }
    }

    fn once(&self, show: &Show, out: &mut dyn Write) -> Result<(), String> {
        let value = match self {
            See::Pools { search, .. } => {
                let search = escaped(search.as_deref().unwrap_or_default().as_bytes());
                pages(&show.at, "pools", &format!("/api/pools?limit=1000&q={search}"))?
            }
            See::Elements { pool, .. } => {
                let pool = escaped(handle::parse(pool)?.as_bytes());
                pages(&show.at, "elements", &format!("/api/elements?limit=1000&pool={pool}"))?
            }
            See::Peers { .. } => show.at.get("/api/peers")?,
            See::Status { .. } => show.at.get("/api/status")?,
            See::Mib { .. } => show.at.get("/mib")?,
            See::Events { .. } => return Ok(()),
        };
        if show.json {
            return written(writeln!(out, "{value}"));
        }
        let text = match self {
            See::Pools { .. } => pools(&value),
            See::Elements { .. } => elements(&value),
            See::Peers { .. } => peers(&value),
            See::Mib { .. } => mib(&value),
            _ => status(&value),
        };
        written(out.write_all(text.as_bytes()))
    }
}

/// All pages of a list, put together.
fn pages(at: &Where, list: &str, path: &str) -> Result<Value, String> {
    let mut all = at.get(path)?;
    while let Some(next) = all["next"].as_str().map(String::from) {
        let mut more = at.get(&format!("{path}&after={next}"))?;
        all["next"] = more["next"].take();
        if let (Value::Array(known), Value::Array(more)) = (&mut all[list], more[list].take()) {
            known.extend(more);
        }
    }
    Ok(all)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Seconds in words.
fn span(value: &Value) -> String {
    match value.as_f64() {
        None => "-".into(),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.1} s"),
        Some(seconds) if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        Some(seconds) if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        Some(seconds) => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// Time since a moment of the Unix epoch, in words.
fn since(value: &Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    value.as_f64().map_or("-".into(), |at| span(&(now.as_secs_f64() - at).max(0.0).into()))
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|name| name.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.iter().map(|name| name.to_string()).collect();
    let mut out = String::new();
    for row in std::iter::once(head).chain(rows) {
        let row: Vec<String> = row;
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], |list| list)
}

fn pools(value: &Value) -> String {
    let mut rows = Vec::new();
    for pool in list(&value["emptied"]) {
        let mut row =
            vec![text(&pool["handle"]), "EMPTY".into(), "-".into(), "-".into(), "-".into(), "-".into()];
        row.push(text(&pool["lost"]));
        row.push(since(&pool["empty_since"]));
        rows.push(row);
    }
    for pool in list(&value["pools"]) {
        let load = pool["load"].as_f64().map_or("-".into(), |load| format!("{:.0} %", load * 100.0));
        rows.push(vec![
            text(&pool["handle"]),
            text(&pool["size"]),
            text(&pool["drained"]),
            text(&pool["policy"]),
            load,
            text(&pool["selected"]),
            text(&pool["lost"]),
            since(&pool["changed"]),
        ]);
    }
    table(&["POOL", "ELEMENTS", "DRAINED", "POLICY", "LOAD", "SELECTED", "LOST", "CHANGED"], rows)
}

fn elements(value: &Value) -> String {
    let rows = list(&value["elements"]).iter().map(|element| {
        vec![
            text(&element["id"]),
            if element["drained"] == true { "drained" } else { "in service" }.into(),
            text(&element["transport"]["addresses"]),
            text(&element["transport"]["protocol"]),
            text(&element["home"]),
            text(&element["policy"]) + if element["policy_set"] == true { " (set)" } else { "" },
            since(&element["since"]),
            span(&element["heard_s"]),
        ]
    });
    table(&["ELEMENT", "STATE", "ADDRESS", "OVER", "HOME", "POLICY", "KNOWN FOR", "HEARD"], rows.collect())
}

fn peers(value: &Value) -> String {
    let rows = list(&value["peers"]).iter().map(|peer| {
        vec![
            text(&peer["id"]),
            text(&peer["state"]),
            match peer["agrees"].as_bool() {
                Some(true) => "agrees".into(),
                Some(false) => "DIFFERS".into(),
                None => "-".into(),
            },
            span(&peer["last_heard_s"]),
            text(&peer["elements"]),
            text(&peer["queue"]),
            text(&peer["resynchronisations"]),
            text(&peer["addresses"]),
        ]
    });
    let head = ["REGISTRAR", "STATE", "HANDLESPACE", "HEARD", "ELEMENTS", "QUEUE", "RESYNCS", "ADDRESSES"];
    table(&head, rows.collect())
}

fn status(value: &Value) -> String {
    let values = value.as_object().cloned().unwrap_or_default();
    let rows = values.iter().filter(|(name, _)| *name != "bounds").map(|(name, value)| {
        let value = if name == "uptime_s" { span(value) } else { text(value) };
        vec![name.trim_end_matches("_s").replace('_', " "), value]
    });
    let bounds = list(&value["bounds"]).iter().map(|bound| {
        vec![text(&bound["of"]), format!("{} of {}", text(&bound["used"]), text(&bound["most"]))]
    });
    table(&["", ""], rows.chain(bounds).collect()).trim_start().to_string()
}

fn mib(value: &Value) -> String {
    let mut out = String::new();
    for (table, rows) in value.as_object().into_iter().flatten() {
        for row in list(rows) {
            let values = row.as_object().into_iter().flatten();
            let index: Vec<String> = values
                .clone()
                .filter(|(name, _)| name.ends_with("Index"))
                .map(|(_, value)| text(value))
                .collect();
            for (name, value) in values.filter(|(name, _)| !name.ends_with("Index")) {
                out += &format!("{table}.{name}.{} = {}\n", index.join("."), text(value));
            }
        }
    }
    out
}

fn events(at: &Where, json: bool, count: Option<usize>) -> Result<(), String> {
    let mut left = count.unwrap_or(usize::MAX);
    let mut failure = Ok(());
    let mut name = String::new();
    at.stream("/events", |line| {
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.to_string();
        }
        let Some(data) = line.strip_prefix("data: ") else { return left > 0 };
        let value: Value = serde_json::from_str(data).unwrap_or_default();
        let left_out = value["left_out"].as_u64().unwrap_or(0);
        let mut out = io::stdout().lock();
        if left_out > 0 && !json {
            failure = written(writeln!(out, "({left_out} more)"));
        }
        // The snapshot tells what was before.
        let news = if name == "snapshot" { &[] } else { list(&value["happenings"]) };
        for event in news.iter().take(left) {
            left -= 1;
            let line = if json { event.to_string() } else { told(event) };
            failure = written(writeln!(out, "{line}").and_then(|()| out.flush()));
        }
        failure.is_ok() && left > 0
    })?;
    failure
}

/// A happening in a line.
fn told(event: &Value) -> String {
    let mut line = format!("{:.3} {}", event["time"].as_f64().unwrap_or_default(), text(&event["kind"]));
    if event["pool"].is_string() {
        line += &format!(" {}/{}", text(&event["pool"]), text(&event["id"]));
    } else if event["registrar"].is_string() {
        line += &format!(" {}", text(&event["registrar"]));
    }
    for (name, before) in [("address", " at "), ("why", ": ")] {
        if event[name].is_string() {
            line += &format!("{before}{}", text(&event[name]));
        }
    }
    if event["pool"].is_string() && event["size"].is_number() {
        line += &format!(", {} in its pool", text(&event["size"]));
    }
    line
}

/// Changes something.
pub fn act(act: &Act) -> ExitCode {
    let (name, result) = match act {
        Act::Drain { element } => ("drain", element.post("drain", "")),
        Act::Undrain { element } => ("undrain", element.post("undrain", "")),
        Act::Deregister { element } => ("deregister", element.post("deregister", "")),
        Act::Set { element, weight, priority, load, degradation, own } => {
            let values =
                [("weight", weight), ("priority", priority), ("load", load), ("degradation", degradation)];
            let values =
                values.iter().filter_map(|(name, value)| value.map(|value| format!("&{name}={value}")));
            let own = if *own { "&own" } else { "" };
            ("set", element.post("set", &(values.collect::<String>() + own)))
        }
        Act::Maintenance { address, end, at, token } => {
            let end = if *end { "&end" } else { "" };
            ("maintenance", at.post(&format!("/api/maintenance?address={address}{end}"), token))
        }
    };
    let said = result.and_then(|value| {
        let said = match (&value["done"], &value["asked"]) {
            (Value::String(done), _) => done.clone(),
            (_, Value::String(home)) => format!("asked its home registrar {home}"),
            (done, asked) => format!("{} elements, {} more asked for elsewhere", text(done), text(asked)),
        };
        written(writeln!(io::stdout(), "{said}"))?;
        let mut failed: Vec<String> = list(&value["failed"]).iter().map(text).collect();
        failed.extend(refusals(act.asked_at(), &value)?);
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    });
    end(name, said)
}

/// Which of the home registrars that were asked answer that they don't do it.
fn refusals(at: &Where, answer: &Value) -> Result<Vec<String>, String> {
    const LOOKS: (u32, Duration) = (5, Duration::from_millis(100));
    let homes: Vec<&Value> = match &answer["asked"] {
        home @ Value::String(_) => vec![home],
        _ => list(&answer["homes"]).iter().collect(),
    };
    let mut refusals = Vec::new();
    for _ in 0..LOOKS.0 {
        if homes.is_empty() || refusals.len() == homes.len() {
            break;
        }
        std::thread::sleep(LOOKS.1);
        let peers = at.get("/api/peers")?;
        let refuses = |peer: &&Value| peer["refuses"] == true && homes.contains(&&peer["id"]);
        refusals = list(&peers["peers"]).iter().filter(refuses).map(refusal).collect();
    }
    Ok(refusals)
}

fn refusal(peer: &Value) -> String {
    let (home, at) = (text(&peer["id"]), text(&peer["addresses"]));
    format!(
        "registrar {home} at {at} does not let this one change its elements: ask it itself (--http), or start it with this \
         one's address as --peer, or both with TLS"
    )
}

impl Act {
    /// Whose page is asked.
    fn asked_at(&self) -> &Where {
        match self {
            Act::Drain { element }
            | Act::Undrain { element }
            | Act::Set { element, .. }
            | Act::Deregister { element } => &element.at,
            Act::Maintenance { at, .. } => at,
        }
    }
}

impl Element {
    fn post(&self, action: &str, more: &str) -> Result<Value, String> {
        let pool = escaped(handle::parse(&self.pool)?.as_bytes());
        let id = escaped(self.id.as_bytes());
        self.at.post(&format!("/api/{action}?pool={pool}&id={id}{more}"), &self.token)
    }
}
