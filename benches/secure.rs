//! Sessions inside TLS through the C API beside the same two programs over a bare rustls stream, in turns: message round
//! trips and throughput of one session; then failovers of a secured session after SIGKILL. `cargo bench --bench
//! secure`; RSP_BENCH_SECONDS sets the length of a run. What many cost a registrar: `cargo bench --bench secure -- --idle=10000`
//! (memory of each idle client), `-- --restart=5000` (elements that come back to a registrar that was started again).
#![allow(clippy::disallowed_methods)]

#[path = "../tests/common/anybody.rs"]
mod anybody;
mod pool;
mod scale;

use anybody::Anybody;
use pool::{Pooled, Side};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// rustls as its documentation uses it: a blocking socket, and a stream over it.
struct Bare;

/// A stream of either end.
trait Both: Read + Write {}

impl<T: Read + Write> Both for T {}

thread_local! {
    static STREAMS: RefCell<HashMap<RawFd, Box<dyn Both>>> = RefCell::default();
}

fn with<T>(sd: RawFd, call: impl FnOnce(&mut dyn Both) -> T) -> T {
    STREAMS.with_borrow_mut(|all| {
        // One that we did not dial was accepted, by a thread that does nothing but accept.
        let stream = all.entry(sd).or_insert_with(|| {
            let connection = ServerConnection::new(server_config()).expect("a configuration");
            // SAFETY: accept gave it away.
            let socket = unsafe { TcpStream::from_raw_fd(sd) };
            Box::new(StreamOwned::new(connection, socket))
        });
        call(stream)
    })
}

impl Side for Bare {
    type Listener = TcpListener;

    fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let place = listener.local_addr().expect("bound").to_string();
        (listener, place)
    }
    fn accept(listener: &TcpListener) -> RawFd {
        let socket = listener.accept().expect("a connection").0;
        socket.set_nodelay(true).expect("a socket");
        socket.into_raw_fd()
    }
    fn connect(place: &str) -> RawFd {
        let socket = TcpStream::connect(place).expect("the server listens");
        socket.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(client_config(), name).expect("a configuration");
        let sd = socket.as_raw_fd();
        STREAMS.with_borrow_mut(|all| all.insert(sd, Box::new(StreamOwned::new(connection, socket))));
        sd
    }
    fn send(sd: RawFd, data: &[u8]) {
        with(sd, |stream| stream.write_all(data).and_then(|()| stream.flush()).expect("sent"));
    }
    fn receive(sd: RawFd, buffer: &mut [u8]) -> usize {
        with(sd, |stream| stream.read_exact(buffer).map_or(0, |()| buffer.len()))
    }
    fn close(sd: RawFd) {
        STREAMS.with_borrow_mut(|all| all.remove(&sd));
    }
}

fn files() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, CertificateDer<'static>) {
    files_in(&PathBuf::from(std::env::var("RSP_TLS_DIR").expect("set")))
}

/// Chain, key and authority.
fn files_in(dir: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, CertificateDer<'static>) {
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem")).expect("a file");
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).expect("an authority");
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("a key");
    (chain.map(|der| der.expect("a certificate")).collect(), key, ca)
}

fn server_config() -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key, ca) = files();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).expect("an authority");
    let builder = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(builder.build().expect("a verifier"))
        .with_single_cert(chain, key);
    Arc::new(config.expect("a key of the certificate"))
}

fn client_config() -> Arc<ClientConfig> {
    let (chain, key, _) = files();
    Arc::new(config_of(chain, key))
}

/// What a client of an application protocol has that shows the certificate of `dir`.
fn identity(dir: &Path, protocol: &[u8]) -> Arc<ClientConfig> {
    let (chain, key, _) = files_in(dir);
    let mut config = config_of(chain, key);
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn config_of(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(chain, key);
    config.expect("a key of the certificate")
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = arguments.get(1).map_or("", String::as_str);
    let number = |name: &str| argument.strip_prefix(name).and_then(|number| number.parse().ok());
    match argument {
        "--serve-bare" => serve::<Bare>(),
        "--serve-pooled" => serve::<Pooled>(),
        _ => match (number("--idle="), number("--restart=")) {
            (Some(count), _) => scale::idle(count),
            (_, Some(count)) => scale::restart(count),
            _ => match argument.strip_prefix("--elements=") {
                Some(what) => scale::serve_elements(what),
                None => compare(),
            },
        },
    }
}

const DONE: usize = 8;

/// Serves until it is killed: the first message says how long messages are, and after how many there is an answer:
/// of the same size (1), or of [`DONE`] bytes.
fn serve<S: Side>() {
    let (listener, place) = S::listen();
    println!("{place}");
    loop {
        let sd = S::accept(&listener);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            if S::receive(sd, &mut buffer[..8]) != 8 {
                return;
            }
            let word = |at: usize| u32::from_be_bytes(buffer[at..at + 4].try_into().expect("four")) as usize;
            let (size, batch, mut count) = (word(0), word(4), 0);
            while S::receive(sd, &mut buffer[..size]) == size {
                count += 1;
                if count == batch {
                    count = 0;
                    S::send(sd, &buffer[..if batch == 1 { size } else { DONE }]);
                }
            }
        });
    }
}

struct Server {
    child: Child,
    place: String,
}

impl Server {
    fn start(kind: &str, whose: &str) -> Server {
        Server::run(Server::command(kind, whose))
    }

    /// Another element of a pool.
    fn join(pool: &str, whose: &str) -> Server {
        let mut command = Server::command("pooled", whose);
        command.env("RSP_BENCH_POOL", pool);
        Server::run(command)
    }

    fn command(kind: &str, whose: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.arg(format!("--serve-{kind}")).env("RSP_TLS_DIR", whose).stdout(Stdio::piped());
        command
    }

    fn run(mut command: Command) -> Server {
        let mut child = command.spawn().expect("the server starts");
        let mut place = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut place).expect("a line");
        Server { child, place: place.trim().into() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open<S: Side>(place: &str, size: usize, batch: usize) -> RawFd {
    let sd = S::connect(place);
    S::send(sd, &[(size as u32).to_be_bytes(), (batch as u32).to_be_bytes()].concat());
    sd
}

fn round_trips<S: Side>(sd: RawFd, size: usize, time: Duration) -> f64 {
    let (data, mut buffer) = (vec![7; size], vec![0; 65536]);
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < time {
        for _ in 0..16 {
            S::send(sd, &data);
            assert_eq!(S::receive(sd, &mut buffer[..size]), size);
        }
        count += 16;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

fn stream<S: Side>(sd: RawFd, size: usize, batch: usize, time: Duration) -> f64 {
    let (data, mut done) = (vec![7; size], [0; DONE]);
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < time {
        (0..batch).for_each(|_| S::send(sd, &data));
        assert_eq!(S::receive(sd, &mut done), DONE);
        bytes += batch * size;
    }
    bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

const ROUNDS: usize = 8;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

fn row(what: &str, ours: impl Fn() -> f64, bare: impl Fn() -> f64) {
    let rates: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (ours(), bare())).collect();
    let (ours, bare) = (
        median(rates.iter().map(|pair| pair.0).collect()),
        median(rates.iter().map(|pair| pair.1).collect()),
    );
    println!("{what:<24} {ours:>12.0} {bare:>12.0} {:>6.2}", ours / bare);
}

fn authority() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("rserpool-bench-ca-{}", std::process::id()));
    for step in [
        &["init", "--scope", "bench"][..],
        &["issue", "registrar", "--role", "registrar"],
        &["issue", "server", "--role", "element", "--pool", "Bench*"],
        &["issue", "user", "--role", "user"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rspctl"));
        let output = command.args(["ca", "--dir"]).arg(&dir).args(step).output().expect("rspctl");
        assert!(output.status.success(), "{step:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    dir
}

fn compare() {
    let seconds: f64 =
        std::env::var("RSP_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds / ROUNDS as f64);
    let dir = authority();
    let of = |name: &str| dir.join(name).display().to_string();
    let _registrar = pool::start_registrar(&[&format!("--tls-dir={}", of("registrar"))]);
    // SAFETY: the threads that run don't look at it.
    unsafe { std::env::set_var("RSP_TLS_DIR", of("user")) };
    let (pooled, bare) = (Server::start("pooled", &of("server")), Server::start("bare", &of("server")));
    println!(
        "one session inside TLS, and the same programs over a rustls stream; {seconds} s each, in {ROUNDS} turns"
    );
    println!("{:<24} {:>12} {:>12} {:>6}", "median", "ours", "bare", "ratio");
    for size in [64, 1024, 16384, 65536] {
        let sds = (open::<Pooled>(&pooled.place, size, 1), open::<Bare>(&bare.place, size, 1));
        row(
            &format!("{size:>6} B round trips/s"),
            || round_trips::<Pooled>(sds.0, size, time),
            || round_trips::<Bare>(sds.1, size, time),
        );
    }
    for size in [64, 1024, 16384, 65536] {
        let batch = ((1 << 20) / size).min(4096);
        let sds = (open::<Pooled>(&pooled.place, size, batch), open::<Bare>(&bare.place, size, batch));
        row(
            &format!("{size:>6} B MB/s"),
            || stream::<Pooled>(sds.0, size, batch, time),
            || stream::<Bare>(sds.1, size, batch, time),
        );
    }
    drop((pooled, bare));
    failovers(&of("server"));
    let _ = std::fs::remove_dir_all(dir);
}

/// From SIGKILL of the element in use until the next one has answered.
fn failovers(whose: &str) {
    let mut times = Vec::new();
    for round in 0..10 {
        let place = format!("BenchFailover{round}");
        let mut servers = vec![Server::join(&place, whose), Server::join(&place, whose)];
        let mut sds = Vec::new();
        // Sessions go round: one of two is with the first.
        for _ in 0..2 {
            sds.push(open::<Pooled>(&place, 64, 1));
        }
        let (mut buffer, data) = ([0; 64], [7; 64]);
        for &sd in &sds {
            pool::send(sd, &data);
            assert!(pool::receive(sd, &mut buffer).is_some());
        }
        std::thread::sleep(Duration::from_millis(300));
        let victim = servers.remove(0);
        let begin = Instant::now();
        drop(victim);
        let moved: Vec<f64> = sds
            .iter()
            .filter_map(|&sd| {
                // Only the session whose element is gone has to move.
                if pool::send(sd, &data) && pool::receive(sd, &mut buffer).is_some() {
                    return None;
                }
                pool::fail_over(sd);
                assert!(pool::send(sd, &[64_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat()));
                assert!(pool::send(sd, &data));
                assert!(pool::receive(sd, &mut buffer).is_some(), "answered");
                Some(begin.elapsed().as_secs_f64() * 1e3)
            })
            .collect();
        times.extend(moved);
        sds.into_iter().for_each(pool::close);
        drop(servers);
        std::thread::sleep(Duration::from_millis(200));
    }
    println!(
        "failover of a secured session after SIGKILL, {} times: median {:.2} ms, longest {:.2} ms",
        times.len(),
        median(times.clone()),
        times.iter().copied().fold(0.0, f64::max)
    );
}
