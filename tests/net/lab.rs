//! Hosts as network namespaces on one bridge, processes on them, and what registrars say of themselves.

use crate::skip::skipped;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where a registrar's status page is, in its own namespace.
const PAGE: u16 = 8080;
/// Between two looks at something that is awaited.
const GLANCE: Duration = Duration::from_millis(10);

/// Which addresses an interface gets, beside the link-local one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// The bridge, the hosts around it and a folder for files. Removed with everything in it when dropped.
pub struct Lab {
    name: String,
    hosts: Vec<String>,
    pub folder: PathBuf,
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    let output = output.map_err(|error| format!("no ip (iproute2): {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Lab {
    /// An empty lab; `None` (and a SKIPPED line) where this process may not make one.
    pub fn new() -> Option<Lab> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rspnet{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::create_dir_all(&folder).expect("folder");
        let lab = Lab { name, hosts: Vec::new(), folder };
        let made = ip(&format!("netns add {}", lab.hub()))
            .and_then(|()| ip(&format!("-n {} link add hub type bridge", lab.hub())))
            // What is flooded reaches everybody, as on a switch that doesn't know of groups.
            .and_then(|()| ip(&format!("-n {} link set hub type bridge mcast_snooping 0", lab.hub())))
            .and_then(|()| ip(&format!("-n {} link set hub up", lab.hub())));
        match made {
            Ok(()) => Some(lab),
            Err(why) => {
                skipped(std::thread::current().name().unwrap_or("net"), &why);
                None
            }
        }
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// A new host with an address of its own, plugged in.
    pub fn host(&mut self) -> usize {
        let host = self.bare_host();
        self.plug_in(host, Family::V4);
        host
    }

    /// A new host with nothing but its loopback interface.
    pub fn bare_host(&mut self) -> usize {
        let number = self.hosts.len();
        let name = format!("{}-{number}", self.name);
        self.hosts.push(name.clone());
        ip(&format!("netns add {name}")).expect("a host");
        ip(&format!("-n {name} link set lo up")).expect("loopback");
        number
    }

    /// Gives a host an interface with an address, on the bridge.
    pub fn plug_in(&self, host: usize, family: Family) {
        let (name, hub) = (&self.hosts[host], self.hub());
        let address = match family {
            Family::V4 => format!("10.77.0.{}/24", host + 1),
            Family::V6 => format!("fd77::{:x}/64", host + 1),
        };
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        for words in [
            format!("link add port{host} netns {hub} type veth peer name eth0 netns {name}"),
            format!("-n {hub} link set port{host} master hub up"),
            format!("-n {name} addr add {address} dev eth0 {nodad}"),
            format!("-n {name} link set eth0 up"),
        ] {
            ip(&words).expect("an interface");
        }
    }

    /// Takes the interface away again.
    pub fn pull_out(&self, host: usize) {
        ip(&format!("-n {} link del eth0", self.hosts[host])).expect("no interface");
    }

    /// Gives a host another address instead of its own.
    pub fn renumber(&self, host: usize, address: &str) {
        let name = &self.hosts[host];
        ip(&format!("-n {name} addr flush dev eth0")).expect("no address");
        ip(&format!("-n {name} addr add {address}/24 dev eth0")).expect("an address");
    }

    /// Unplugs the host: the link stays up at its end, nothing arrives.
    pub fn cut(&self, host: usize) {
        ip(&format!("-n {} link set port{host} nomaster", self.hub())).expect("cut");
    }

    /// Plugs it in again.
    pub fn heal(&self, host: usize) {
        ip(&format!("-n {} link set port{host} master hub", self.hub())).expect("heal");
    }

    /// Starts a program on a host, without configuration; its output goes to `log` in the folder.
    pub fn start(&self, host: usize, program: &Path, arguments: &[&str], log: &str) -> Process {
        let file = || File::options().create(true).append(true).open(self.folder.join(log)).expect("log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hosts[host]]).arg(program).args(arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RSP_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(file()).stderr(file());
        Process { child: command.spawn().expect("start") }
    }

    /// What a registrar on the host knows now; `None` if it doesn't answer.
    pub fn view(&self, host: usize) -> Option<View> {
        let namespace = File::open(format!("/run/netns/{}", self.hosts[host])).ok()?;
        // A namespace is a thread's: one that ends right away.
        let text = std::thread::spawn(move || -> io::Result<String> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            get("/handlespace", (Ipv4Addr::LOCALHOST, PAGE).into())
        });
        View::parse(&text.join().ok()?.ok()?)
    }

    pub fn log(&self, log: &str) -> String {
        fs::read_to_string(self.folder.join(log)).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let last = &lines[lines
                        .len()
                        .saturating_sub(if std::env::var_os("RSP_ALL").is_some() { 4000 } else { 25 })..];
                    println!("== {}\n{}", entry.path().display(), last.join("\n"));
                }
            }
        }
        for name in self.hosts.iter().cloned().chain([self.hub()]) {
            let _ = ip(&format!("netns del {name}"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn get(path: &str, at: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A process that ends with the test, also when it is frozen.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn signal(&self, signal: i32) {
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Kills it without a chance to say goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn status(&mut self) -> Option<i32> {
        self.child.try_wait().expect("status").map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A registrar's view of the world.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub registrar: String,
    pub serving: bool,
    pub peers: Vec<String>,
    /// By pool handle and ID; everything that all registrars have to agree on.
    pub elements: BTreeMap<(String, String), Value>,
}

impl View {
    fn parse(text: &str) -> Option<View> {
        let json: Value = serde_json::from_str(text).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut elements = BTreeMap::new();
        for pool in json["pools"].as_array()? {
            for element in pool["elements"].as_array()? {
                let mut element = element.clone();
                // Since when it is known is everybody's own.
                element.as_object_mut()?.remove("age_s");
                elements.insert((text(&pool["handle"]), text(&element["id"])), element);
            }
        }
        let alive = json["peers"].as_array()?.iter().filter(|peer| peer["state"] == "alive");
        Some(View {
            registrar: text(&json["registrar"]),
            serving: json["serving"].as_bool()?,
            peers: alive.map(|peer| text(&peer["id"])).collect(),
            elements,
        })
    }

    /// IDs of all elements, in order.
    pub fn ids(&self) -> Vec<&str> {
        self.elements.keys().map(|(_, id)| id.as_str()).collect()
    }

    /// Home registrars of all elements, by the elements' order.
    pub fn homes(&self) -> Vec<&str> {
        self.elements.values().map(|element| element["home"].as_str().unwrap_or_default()).collect()
    }
}

/// Waits until `found` finds something; how long that took.
pub fn wait_for<T>(what: &str, patience: Duration, mut found: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begin = Instant::now();
    loop {
        if let Some(result) = found() {
            return (result, begin.elapsed());
        }
        assert!(begin.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(GLANCE);
    }
}
