//! The page in a real browser: headless Chromium, spoken to over its debugging pipe.

use super::elements::{Elements, element};
use super::page::PATIENT;
use super::{skipped, soon};
use crate::busy::busy;
use crate::process::Registrar;
use rserpool::wire::Policy;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    number: u64,
    /// What the page wrote to its console as errors, and failed requests.
    errors: Vec<String>,
    profile: PathBuf,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

impl Browser {
    /// `None`: there is no Chromium, which is said.
    fn start(name: &str) -> Option<Browser> {
        let (theirs_in, ours_out) = std::io::pipe().expect("pipe");
        let (ours_in, theirs_out) = std::io::pipe().expect("pipe");
        let profile = super::scratch(&format!("chromium-{name}"));
        let (read, write) = (theirs_in.as_raw_fd(), theirs_out.as_raw_fd());
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--remote-debugging-pipe", "--hide-scrollbars", "--disable-extensions"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: only dup2 and fcntl before exec.
        unsafe {
            command.pre_exec(move || {
                // First out of the way of each other's numbers.
                let (read, write) =
                    (libc::fcntl(read, libc::F_DUPFD, 20), libc::fcntl(write, libc::F_DUPFD, 20));
                match libc::dup2(read, 3) == 3 && libc::dup2(write, 4) == 4 {
                    true => Ok(()),
                    false => Err(std::io::Error::last_os_error()),
                }
            })
        };
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skipped("the page in a browser: chromium", &error.to_string());
                return None;
            }
        };
        drop((theirs_in, theirs_out));
        let mut browser = Browser {
            child,
            to: File::from(OwnedFd::from(ours_out)),
            from: BufReader::new(File::from(OwnedFd::from(ours_in))),
            session: None,
            number: 0,
            errors: Vec::new(),
            profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(String::from);
        for method in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(method, json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        write!(self.to, "{message}\0").and_then(|()| self.to.flush()).expect("chromium listens");
        loop {
            let mut answer = Vec::new();
            let count = self.from.read_until(0, &mut answer).expect("chromium answers");
            assert!(count > 0, "chromium ended");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            self.note(&answer);
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let is_error = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        if is_error {
            self.errors.push(event["params"].to_string());
        }
    }

    /// The value of an expression; promises are waited for.
    fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    fn text(&mut self, selector: &str) -> String {
        let value = self.value(&format!("document.querySelector('{selector}').innerText"));
        value.as_str().unwrap_or_default().to_string()
    }

    fn open(&mut self, url: &str, width: u32, dark: bool) {
        let size = json!({ "width": width, "height": if width < 600 { 844 } else { 760 }, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media);
        self.call("Page.navigate", json!({ "url": url }));
        let begin = Instant::now();
        while url.starts_with("http") && !self.loaded() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the page does not load");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn loaded(&mut self) -> bool {
        let summary = "(document.querySelector('#summary') || { innerText: '' }).innerText";
        self.value(summary).as_str().is_some_and(|text| text.starts_with("Serving"))
    }

    /// Kept where RSP_SCREENSHOTS says, for the documents.
    fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("RSP_SCREENSHOTS") else { return };
        let data = self.call("Page.captureScreenshot", json!({ "format": "png" }))["data"].clone();
        let bytes = from_base64(data.as_str().expect("a picture"));
        std::fs::write(Path::new(&folder).join(name), bytes).expect("write");
    }

    /// What axe-core finds wrong.
    fn axe(&mut self, source: &str, what: &str) {
        self.value(&format!("{source}; 0"));
        let result = self.value(
            "axe.run(document, { resultTypes: ['violations'] }).then(result => ({ version: result.testEngine.version, \
             passes: result.passes.length, \
             violations: result.violations.map(one => one.id + ': ' + one.nodes.map(node => node.html + ' ' + node.failureSummary).join(' | ')) }))",
        );
        assert!(
            result["version"].is_string() && result["passes"].as_u64() > Some(10),
            "axe did not judge: {result}"
        );
        assert_eq!(result["violations"], json!([]), "{what}");
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// axe-core as one file, from its npm package; kept in the target folder.
fn axe_core() -> Option<String> {
    const VERSION: &str = "4.10.3";
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("axe-{VERSION}"));
    let file = folder.join("package/axe.min.js");
    if !file.exists() {
        std::fs::create_dir_all(&folder).expect("folder");
        let mut npm = Command::new("npm");
        npm.args(["pack", "--silent", &format!("axe-core@{VERSION}")])
            .current_dir(&folder)
            .stdout(Stdio::null());
        let mut tar = Command::new("tar");
        tar.args(["xzf", &format!("axe-core-{VERSION}.tgz")]).current_dir(&folder);
        for mut command in [npm, tar] {
            match command.status() {
                Ok(status) if status.success() => {}
                other => {
                    skipped("accessibility of the page: axe-core", &format!("{other:?}"));
                    return None;
                }
            }
        }
    }
    Some(std::fs::read_to_string(file).expect("axe-core"))
}

#[test]
fn the_page_shows_a_loss_within_a_second() {
    let Some(mut browser) = Browser::start("loss") else { return };
    let registrar = Registrar::start(&PATIENT);
    let other = Registrar::start(&["-config=off", &format!("-peer={}", registrar.enrp)]);
    let mut users = Elements::connect(registrar.asap);
    let mut kept = Elements::connect(registrar.asap);
    for (number, pool) in ["billing", "echo", "mail", "search", "sessions"].into_iter().enumerate() {
        for id in 1..=3 + number as u32 {
            let load = u32::MAX / 10 * id;
            assert!(kept.register(pool.as_bytes(), element(id, Policy::LeastUsed { load })));
        }
        users.resolve(pool.as_bytes(), 2);
    }
    let doomed = Elements::fill(registrar.asap, b"printers", 2);
    soon("the peer", || super::page::get(registrar.http, "/metrics").1.contains("rserpool_peer_agrees{"));
    browser.open(&format!("http://{}/", registrar.http), 1200, false);
    soon("the pools", || browser.text("#pools").contains("printers"));
    assert!(browser.text("#peers").contains("alive"), "{}", browser.text("#peers"));
    browser.picture("page.png");
    // The kill.
    drop(doomed);
    let begin = Instant::now();
    soon("the alarm", || browser.text("#alarm").contains("printers"));
    let took = begin.elapsed();
    assert!(took < busy() * Duration::from_secs(1), "seen after {took:?}");
    assert!(
        browser
            .text("#lately")
            .contains("lost printers/0x00000002 at 10.0.0.2:80: link closed, 0 in its pool")
    );
    assert!(browser.text("#summary").contains("1 pool became empty"));
    users.resolve(b"printers", 1);
    other.process.signal(libc::SIGKILL);
    soon("the dead peer", || !browser.text("#peers").contains("alive"));
    soon("users turned away", || browser.text("#emptied").trim_end().ends_with('1'));
    browser.picture("page-failure.png");
    assert_eq!(browser.errors, Vec::<String>::new());

    // A pool's elements, with the keyboard alone, on a phone in the dark.
    browser.open(&format!("http://{}/", registrar.http), 390, true);
    soon("the pools", || browser.text("#pools").contains("echo"));
    browser.value(
        "[...document.querySelectorAll('#pools button')].find(one => one.innerText == 'echo').focus()",
    );
    for kind in ["keyDown", "keyUp"] {
        let key = json!({ "type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13 });
        browser.call("Input.dispatchKeyEvent", key);
    }
    soon("its elements", || browser.text("#elements").contains("0x00000004"));
    let wide = browser.value("document.documentElement.scrollWidth > document.documentElement.clientWidth");
    assert_eq!(wide, false, "the page is as wide as a phone");
    browser.picture("page-phone.png");
    // Search finds what it should, and focus stays where it is while rows change.
    browser.value("document.querySelector('#search').focus()");
    browser.call("Input.insertText", json!({ "text": "SESS" }));
    soon("the search", || {
        !browser.text("#pools").contains("billing") && browser.text("#pools").contains("sessions")
    });
    drop(Elements::fill(registrar.asap, b"sessions2", 1));
    soon("news", || browser.text("#lately").contains("sessions2"));
    assert_eq!(browser.value("document.activeElement.id"), "search");
    assert_eq!(browser.errors, Vec::<String>::new());
}

#[test]
fn the_page_is_accessible() {
    let Some(mut browser) = Browser::start("axe") else { return };
    let Some(axe) = axe_core() else { return };
    let registrar = Registrar::start(&PATIENT);
    let url = format!("http://{}/", registrar.http);
    browser.open(&url, 1200, false);
    browser.axe(&axe, "empty");
    let mut elements = Elements::connect(registrar.asap);
    for id in 1..=1000 {
        assert!(elements.register(b"big", element(id, Policy::Random)));
    }
    drop(Elements::fill(registrar.asap, b"gone", 1));
    for (width, dark) in [(1200, false), (1200, true), (600, false), (390, true)] {
        browser.open(&format!("{url}#%62%69%67"), width, dark);
        soon("the alarm", || browser.text("#alarm").contains("gone"));
        soon("elements", || browser.text("#elements").contains("0x00000001"));
        browser.axe(&axe, &format!("{width} pixels, dark: {dark}"));
        browser.open("about:blank", width, dark);
    }
    assert_eq!(browser.errors, Vec::<String>::new());
}

/// 100 000 elements: the page is there at once, and goes on to work.
#[test]
fn the_page_takes_very_many_elements() {
    let Some(mut browser) = Browser::start("many") else { return };
    let registrar = Registrar::start(&PATIENT);
    let mut elements = Elements::connect(registrar.asap);
    elements.register_many(b"big", 100_000);
    let begin = Instant::now();
    browser.open(&format!("http://{}/#%62%69%67", registrar.http), 1200, false);
    soon("elements", || browser.text("#elements").contains("0x00000032"));
    let took = begin.elapsed();
    assert!(took < busy() * Duration::from_secs(5), "{took:?}");
    browser.value("document.querySelector('#emore').click()");
    soon("the next page", || browser.text("#elements").contains("0x00000064"));
    let longest = browser.value(
        "new Promise(done => { let last = performance.now(), longest = 0, left = 100; \
         const timer = setInterval(() => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; \
         if (!--left) { clearInterval(timer); done(longest); } }, 20); })",
    );
    assert!(longest.as_f64() < Some(1000.0), "the page stood still for {longest} ms");
    assert_eq!(browser.errors, Vec::<String>::new());
}
