//! `rspctl doctor` on a healthy host and on broken ones, each a network of its own.

use super::skipped;
use std::process::Command;

/// What it says on a host that a script has made, and its exit status; `None`: there are no such hosts here.
fn doctor(script: &str) -> Option<(String, i32)> {
    let script = format!("{script}; {} doctor --registrar 127.0.0.1:3863", env!("CARGO_BIN_EXE_rspctl"));
    let mut command = Command::new("unshare");
    let output = command.args(["-rn", "sh", "-c", &script]).env_remove("RSP_REGISTRAR").output();
    match output {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("unshare") => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            Some((said, output.status.code().expect("status")))
        }
        other => {
            skipped("rspctl doctor: a network of its own", &format!("{other:?}"));
            None
        }
    }
}

const UP: &str = "ip link set lo up; ip link add other type veth peer name far; ip link set far up; ip addr add 10.9.8.7/24 dev other; ip link set other up; \
    ip route add 239.0.0.0/8 dev other";

fn line(said: &str, what: &str) -> String {
    let found = said.lines().find(|line| line.contains(&format!("  {what}: ")));
    found.unwrap_or_else(|| panic!("nothing about {what}: {said}")).to_string()
}

#[test]
fn a_healthy_host() {
    let registrar = env!("CARGO_BIN_EXE_rspregistrar");
    let said = super::scratch("healthy");
    let script = format!(
        "{UP}; {registrar} --config=off --transport=tcp --logquiet >'{0}' & trap 'kill $!' EXIT; \
         for try in $(seq 200); do ! grep -q 'is ready' '{0}' || break; sleep 0.1; done",
        said.display()
    );
    let Some((said, status)) = doctor(&script) else { return };
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains("BAD"), "{said}");
    for what in ["ASAP port", "ENRP port", "registrar"] {
        assert!(line(&said, what).starts_with("good") && line(&said, what).contains("answers"), "{said}");
    }
    assert!(line(&said, "addresses").contains("10.9.8.7"), "{said}");
    assert!(line(&said, "multicast").starts_with("good"), "{said}");
}

#[test]
fn a_host_without_a_network() {
    let Some((said, status)) = doctor("true") else { return };
    assert_eq!(status, 1, "{said}");
    assert!(line(&said, "addresses").starts_with("BAD") && said.contains("-> ip link set lo up"), "{said}");
    assert!(line(&said, "multicast").starts_with("warn"), "{said}");
    assert!(line(&said, "registrar").starts_with("BAD"), "{said}");
}

#[test]
fn a_host_whose_port_another_program_has() {
    let ready = super::scratch("other-program");
    let program = format!(
        "import http.server as h; s = h.HTTPServer((\"\", 3863), h.BaseHTTPRequestHandler); \
         open(\"{}\", \"w\").close(); s.serve_forever()",
        ready.display()
    );
    let script = format!(
        "{UP}; python3 -c '{program}' >/dev/null 2>&1 & trap 'kill $!' EXIT; \
         for try in $(seq 200); do [ ! -e '{}' ] || break; sleep 0.1; done",
        ready.display()
    );
    let Some((said, status)) = doctor(&script) else { return };
    assert_eq!(status, 1, "{said}");
    let port = line(&said, "ASAP port");
    assert!(
        port.starts_with("BAD") && port.contains("something that is no registrar has TCP port 3863"),
        "{said}"
    );
    assert!(line(&said, "ENRP port").contains("is free"), "{said}");
}

#[test]
fn a_host_with_few_descriptors() {
    let Some((said, status)) = doctor(&format!("{UP}; ulimit -n 200")) else { return };
    assert_eq!(status, 1, "{said}");
    assert!(line(&said, "descriptors").starts_with("BAD") && said.contains("LimitNOFILE="), "{said}");
}

/// As rspctl ca leaves it, and as it is not to be.
#[test]
fn certificates_are_looked_at() {
    let dir = super::scratch("doctor-ca");
    let ca = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rspctl"))
            .args(["ca", "--dir"])
            .arg(&dir)
            .args(arguments)
            .output();
        let output = output.expect("rspctl ca");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    ca(&["init", "--scope", "here"]);
    ca(&["issue", "good", "--role", "user"]);
    ca(&["issue", "short", "--role", "user", "--days", "3"]);
    let doctor_of = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rspctl"));
        let output =
            command.args(["doctor", "--tls-dir"]).arg(dir.join(name)).env_remove("RSP_REGISTRAR").output();
        let output = output.expect("rspctl doctor");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let good = doctor_of("good");
    assert!(
        line(&good, "certificate").starts_with("good") && line(&good, "key").starts_with("good"),
        "{good}"
    );
    let short = doctor_of("short");
    assert!(line(&short, "certificate").starts_with("warn"), "{short}");
    let key = dir.join("good/key.pem");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("mode");
    assert!(line(&doctor_of("good"), "key").starts_with("BAD"), "{}", doctor_of("good"));
    std::fs::remove_file(&key).expect("key");
    assert!(line(&doctor_of("good"), "certificate").starts_with("BAD"), "{}", doctor_of("good"));
}
