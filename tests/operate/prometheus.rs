//! A real Prometheus: it takes what we say, the alerts of the documents fire, the dashboard's questions have answers.

use super::elements::Elements;
use super::page::{PATIENT, get};
use super::{scratch, skipped, soon};
use crate::process::Registrar;
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operate");

#[test]
fn the_alert_rules_do_what_they_say() {
    for arguments in [&["check", "rules", "alerts.yml"][..], &["test", "rules", "alerts-test.yml"]] {
        match Command::new("promtool").args(arguments).current_dir(DOCUMENTS).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
            }
            Err(error) => return skipped("alert rules: promtool", &error.to_string()),
        }
    }
}

struct Prometheus {
    child: Child,
    at: SocketAddr,
    folder: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Prometheus {
    fn start(registrars: &[&Registrar]) -> Option<Prometheus> {
        let folder = scratch("prometheus");
        fs::create_dir_all(&folder).expect("folder");
        let targets: Vec<String> = registrars.iter().map(|registrar| registrar.http.to_string()).collect();
        let configuration = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{DOCUMENTS}/alerts.yml']\n\
             scrape_configs:\n  - job_name: rserpool\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration).expect("write");
        let at = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={at}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Prometheus { child, at, folder }),
            Err(error) => {
                skipped("a real Prometheus", &error.to_string());
                None
            }
        }
    }

    fn ask(&self, path: &str) -> Value {
        // It takes a while to be there, and ready.
        let answer = std::net::TcpStream::connect(self.at).ok().map(|_| get(self.at, path));
        let body = answer.filter(|(head, _)| head.contains(" 200 OK")).map(|(_, body)| body);
        body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    fn series(&self, question: &str) -> usize {
        let escaped: String = question.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.ask(&format!("/api/v1/query?query={escaped}"));
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn the_alert_of_an_empty_pool_fires_and_the_dashboard_has_answers() {
    let registrar = Registrar::start(&PATIENT);
    let other = Registrar::start(&["-config=off", &format!("-peer={}", registrar.enrp)]);
    let Some(prometheus) = Prometheus::start(&[&registrar, &other]) else { return };
    let mut elements = Elements::fill(registrar.asap, b"echo", 2);
    elements.resolve(b"echo", 1);
    let doomed = Elements::fill(registrar.asap, b"printers", 1);
    soon("a scrape", || prometheus.series("up{job=\"rserpool\"} == 1") == 2);
    soon("pools", || prometheus.series("rserpool_pool_elements{pool=\"printers\"} == 1") == 2);
    let firing = || {
        let alerts = prometheus.ask("/api/v1/alerts")["data"]["alerts"].take();
        let alerts = alerts.as_array().cloned().unwrap_or_default();
        alerts
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| format!("{} {}", alert["labels"]["alertname"], alert["labels"]["pool"]))
            .collect::<Vec<_>>()
    };
    assert!(!firing().iter().any(|alert| alert.contains("PoolEmpty")), "{:?}", firing());
    drop(doomed);
    let took =
        soon("the alert", || firing().iter().any(|alert| alert == "\"RserpoolPoolEmpty\" \"printers\""));
    println!("the alert fired after {took:?}");
    let back = Elements::fill(registrar.asap, b"printers", 1);
    soon("its end", || !firing().iter().any(|alert| alert.contains("printers")));

    let dashboard: Value = serde_json::from_str(
        &fs::read_to_string(format!("{DOCUMENTS}/grafana-dashboard.json")).expect("dashboard"),
    )
    .expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let question = target["expr"].as_str().expect("a question");
            let question = question.replace("$job", "rserpool").replace("$instance", ".*");
            let question = question.replace("$__rate_interval", "10s");
            // Of some things there are none here.
            if question.contains("refusals") {
                continue;
            }
            soon(&question, || prometheus.series(&question) > 0);
        }
    }
    drop((back, elements));
}
