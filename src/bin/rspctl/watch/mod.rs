//! `rspctl watch`: tell of a pool's changes as its registrar pushes them: lines, a command, files from templates.

mod template;

use crate::{handle, json, out};
use clap::Args;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rserpool::machine::Time;
use rserpool::machine::client::Resolution;
use rserpool::runtime::{Directory, Follower, Pool, Runtime};
use rserpool::wire::{PeId, PoolElement};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use template::Template;

/// How often signals are looked for.
const GLANCE: Duration = Duration::from_millis(50);
/// So long without a registrar is told.
const LONELY: Duration = Duration::from_secs(1);
/// How often the end of a command is looked for.
const STEP: Duration = Duration::from_millis(5);

/// Watch a pool: a line for each state of it, and on request a command, or files from templates.
#[derive(Args)]
pub struct WatchArgs {
    /// Pool handle.
    pool: OsString,
    /// One JSON object per state of the pool instead of text.
    #[arg(long)]
    json: bool,
    /// A shell command to run after each change; it finds RSP_POOL and RSP_COUNT, and the elements as lines of JSON on
    /// its standard input.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Seconds that the command may take (1 to 3600).
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    exec_timeout: u64,
    /// Write OUT from the template IN; repeatable. The command runs only if a file has changed.
    #[arg(long, value_name = "IN:OUT")]
    template: Vec<String>,
    /// Milliseconds without a change before anything is done (0 to 60000).
    #[arg(long, default_value_t = 20, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    quiet: u64,
    /// Milliseconds after a change in which something is done anyway (0 to 600000).
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=600_000))]
    within: u64,
    /// Files are not written, and the command is not run, with fewer elements (0 to 1000000).
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    min: u32,
    /// End after the first state.
    #[arg(long)]
    once: bool,
    /// A registrar to ask; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
}

struct WatchTeller(Sender<()>);

impl Follower for WatchTeller {
    fn pool(&self, _: Time, _: &Resolution) {
        let _ = self.0.send(());
    }
    fn left(&self, _: PeId, _: bool) {
        let _ = self.0.send(());
    }
}

/// A file that is made from the pool.
struct Product {
    template: Template,
    path: PathBuf,
}

/// Runs the subcommand. Exit status 0 after a signal or, with --once, if all went well.
pub fn run(args: &WatchArgs) -> ExitCode {
    out::status("watch", watch(args).map(|good| if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

fn watch(args: &WatchArgs) -> Result<bool, String> {
    let handle = handle::parse(&args.pool)?;
    let products = args.template.iter().map(|text| product(text)).collect::<Result<Vec<_>, _>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| error.to_string())?;
    }
    let runtime = crate::resolve::start(&args.registrar)?;
    let (teller, news) = unbounded();
    let pool = runtime.follow_pool(&handle, Some(Arc::new(WatchTeller(teller))));
    let mut watching = Watching { args, pool: &pool, products, known: None };
    let mut good = true;
    let mut company = Company { runtime: &runtime, since: Some(Instant::now()), told: false };
    while settle(args, &news, &stop, &mut company) {
        if let Some(result) = watching.look() {
            good = result;
            if args.once || !watching.is_read() {
                break;
            }
        }
    }
    drop(pool);
    runtime.shutdown();
    Ok(good || !args.once)
}

/// `IN:OUT`.
fn product(text: &str) -> Result<Product, String> {
    let Some((from, to)) = text.split_once(':') else {
        return Err(format!("--template={text}: IN:OUT is expected"));
    };
    let source = fs::read_to_string(from).map_err(|error| format!("--template={text}: {from}: {error}"))?;
    let template = Template::parse(&source).map_err(|error| format!("--template={text}: {from}: {error}"))?;
    Ok(Product { template, path: to.into() })
}

/// Waits for a change, and then for quiet; `false`: it is enough.
fn settle(args: &WatchArgs, news: &Receiver<()>, stop: &AtomicBool, company: &mut Company<'_>) -> bool {
    let quiet = Duration::from_millis(args.quiet);
    let mut changed: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let patience = match changed {
            None => GLANCE,
            Some(since) => quiet.min(Duration::from_millis(args.within).saturating_sub(since.elapsed())),
        };
        match news.recv_timeout(patience) {
            Ok(()) => _ = changed.get_or_insert_with(Instant::now),
            Err(RecvTimeoutError::Timeout) if changed.is_some() => return true,
            Err(RecvTimeoutError::Timeout) => company.look(),
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    false
}

/// Whether there is a registrar that would tell of changes.
struct Company<'a> {
    runtime: &'a Runtime,
    /// Since when there is none.
    since: Option<Instant>,
    told: bool,
}

impl Company<'_> {
    /// Says once that nobody answers, and once that somebody does again.
    fn look(&mut self) {
        if let Some(registrar) = self.runtime.answered_by() {
            if std::mem::take(&mut self.told) {
                out::complain(format_args!("rspctl: watch: the registrar {registrar} answers"));
            }
            self.since = None;
        } else if self.since.get_or_insert_with(Instant::now).elapsed() >= LONELY && !self.told {
            self.told = true;
            out::complain(
                "rspctl: watch: no registrar answers, so nothing is heard of changes; it is tried on",
            );
        }
    }
}

struct Watching<'a> {
    args: &'a WatchArgs,
    pool: &'a Pool,
    products: Vec<Product>,
    /// What was told last, as it was told.
    known: Option<Vec<String>>,
}

impl Watching<'_> {
    /// Tells of the pool if it has changed: whether all went well.
    fn look(&mut self) -> Option<bool> {
        let elements = self.pool.elements();
        let lines: Vec<String> = elements.iter().map(|element| json::element(element).to_string()).collect();
        if self.known.as_ref() == Some(&lines) {
            return None;
        }
        let before = self.known.replace(lines).map(|lines| lines.len());
        let mut good = self.tell(&elements);
        let handle = self.pool.handle();
        let count = elements.len();
        if count < self.args.min as usize {
            if !self.products.is_empty() || self.args.exec.is_some() {
                out::complain(format_args!(
                    "rspctl: watch: \"{handle}\" has {count} elements, fewer than {}: everything stays as it is",
                    self.args.min
                ));
            }
            return Some(good && self.products.is_empty() && self.args.exec.is_none());
        }
        let mut changed = self.products.is_empty();
        for product in &self.products {
            let text = product.template.render(handle, &elements);
            match write(&product.path, text.as_bytes()) {
                Ok(written) => {
                    changed |= written;
                    if written {
                        log::info!("{before:?} -> {count} elements: {} written", product.path.display());
                    }
                }
                Err(error) => {
                    good = false;
                    out::complain(format_args!("rspctl: watch: {}: {error}", product.path.display()));
                }
            }
        }
        if changed && let Some(command) = &self.args.exec {
            let input = self.known.iter().flatten().map(|line| format!("{line}\n")).collect::<String>();
            let limit = Duration::from_secs(self.args.exec_timeout);
            if let Err(error) = execute(command, &handle.to_string(), count, input, limit) {
                good = false;
                out::complain(format_args!("rspctl: watch: {command}: {error}"));
            }
        }
        Some(good)
    }

    /// The state, for whoever reads.
    fn tell(&self, elements: &[PoolElement]) -> bool {
        let handle = self.pool.handle().to_string();
        if self.args.json {
            let list: Vec<_> = elements.iter().map(json::element).collect();
            return out::line(serde_json::json!({ "pool": handle, "elements": list }));
        }
        let addresses = |element: &PoolElement| {
            element
                .transport
                .socket_addresses()
                .map(|address| address.to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        let list: Vec<String> =
            elements.iter().map(|element| format!("{} {}", element.id, addresses(element))).collect();
        out::line(format_args!("\"{handle}\" {}: {}", elements.len(), list.join("; ")))
    }

    /// Whether there is anybody or anything left to tell.
    fn is_read(&self) -> bool {
        !self.products.is_empty() || self.args.exec.is_some() || io::stdout().lock().flush().is_ok()
    }
}

/// Replaces a file as a whole, mode kept, unless it is so already.
fn write(path: &Path, text: &[u8]) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(text)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map(|()| true)
}

/// Runs a command to its end, or to that of its time.
fn execute(command: &str, pool: &str, count: usize, input: String, limit: Duration) -> io::Result<()> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("RSP_POOL", pool)
        .env("RSP_COUNT", count.to_string())
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read it is none the worse for it.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) };
        }
        if begun.elapsed() >= limit {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done after {limit:?}")));
        }
        std::thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_only_if_it_changes() {
        let folder = std::env::temp_dir().join(format!("rspctl-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("out");
        assert!(write(&path, b"one").unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!write(&path, b"one").unwrap());
        assert!(write(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
        assert!(write(&folder.join("no/where"), b"x").is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn commands_have_their_time() {
        let run = |command: &str| execute(command, "Web", 2, "line\n".into(), Duration::from_millis(300));
        assert!(run("test $RSP_POOL$RSP_COUNT = Web2 && grep -q line").is_ok());
        assert_eq!(run("exit 2").unwrap_err().to_string(), "exit status: 2");
        assert!(run("exec sleep 9").unwrap_err().to_string().contains("not done"));
    }
}
