//! The operator's page inside TLS: who may read it, and who may change something.

use super::authority::ask;
use super::{Ca, rspctl, server, soon, text};
use std::path::Path;
use std::process::Output;

fn operate(ca: &Ca, page: &str, arguments: &[&str], whose: &str) -> Output {
    let mut command = rspctl(arguments);
    command.args(["--http", page]).env_remove("RSP_HTTP_TOKEN_FILE");
    if !whose.is_empty() {
        command.args(["--tls-dir", &ca.of(whose)]);
    }
    command.output().expect("rspctl")
}

#[test]
fn an_operators_certificate_changes_things_and_no_other_does() {
    let ca = Ca::new("page");
    ca.run(&["issue", "operator", "--role", "operator"]);
    let registrar = ca.registrar(&["--mentordiscoverytimeout=0"]);
    let (plain, page) = (registrar.http.to_string(), format!("https://{}", registrar.http));
    let _element = ca.register(registrar.asap, "Echo", server(), "echo");
    let elements = || text(&operate(&ca, &page, &["elements", "Echo", "--json"], "user"));
    soon("registered", || elements().contains("\"id\""));
    let id =
        elements().split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("id").to_owned();
    // Within the host it can be read without TLS, as before.
    assert!(text(&operate(&ca, &plain, &["status"], "")).contains("element count"));
    for whose in ["user", "echo", "registrar"] {
        let said = operate(&ca, &page, &["drain", "Echo", &id], whose);
        assert!(!said.status.success(), "{whose}: {}", text(&said));
        assert!(text(&said).contains("operator's certificate"), "{whose}: {}", text(&said));
    }
    let said = operate(&ca, &plain, &["drain", "Echo", &id], "operator");
    assert!(!said.status.success(), "without TLS a certificate proves nothing: {}", text(&said));
    assert!(!elements().contains("\"drained\":true"), "{}", elements());
    let said = operate(&ca, &page, &["drain", "Echo", &id], "operator");
    assert!(said.status.success(), "{}", text(&said));
    assert!(elements().contains("\"drained\":true"), "{}", elements());

    // What a browser would send for a page of another site.
    let operator = ca.of("operator");
    let post = |headers: &str, dir: Option<&str>| {
        let request = format!(
            "POST /api/undrain?pool=Echo&id={id} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        let answer = ask(registrar.http, "http/1.1", dir.map(Path::new), request.as_bytes(), |_| false);
        answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let said = post("Origin: https://evil.example\r\n", Some(&operator)).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    let said = post("", None).expect("nobody may read, but no more");
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    assert!(elements().contains("\"drained\":true"), "{}", elements());
    // A bad certificate is worse than none.
    let theirs = Ca::new("page-stranger");
    theirs.run(&["issue", "operator", "--role", "operator"]);
    let foreign = theirs.of("operator");
    let refused = post("", Some(&foreign));
    assert!(refused.as_ref().is_err_and(|why| why.contains("alert")), "{refused:?}");
    let said = operate(&theirs, &page, &["status"], "operator");
    assert!(!said.status.success() && text(&said).contains("authority's"), "{}", text(&said));
    let said = post("Origin: https://localhost\r\n", Some(&operator)).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(!elements().contains("\"drained\":true"), "{}", elements());
}

/// A token is of use to whoever reads it on the way.
#[test]
fn from_elsewhere_there_is_only_tls_where_it_is_required() {
    let address = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // Sends nothing.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Ok(address) = address.map(|address| address.ip()) else {
        return super::skipped("the page from elsewhere", "this host has no address but loopback");
    };
    let ca = Ca::new("elsewhere");
    ca.run(&["issue", "operator", "--role", "operator"]);
    let token = ca.0.join("token");
    std::fs::write(&token, "0123456789abcdef0123\n").expect("written");
    let token = token.display().to_string();
    let (listen, option) = (format!("-http={address}:0"), format!("-httptoken={token}"));
    let secure = ca.registrar(&["--mentordiscoverytimeout=0", &listen, &option]);
    let plain = super::Registrar::start(&["--mentordiscoverytimeout=0", "-transport=tcp", &listen, &option]);
    let change = ["maintenance", "192.0.2.7", "--token", token.as_str()];
    let (page, inside) = (secure.http.to_string(), format!("https://{}", secure.http));
    let said = text(&operate(&ca, &page, &["status"], ""));
    assert!(said.contains("426"), "{said}");
    assert!(text(&operate(&ca, &inside, &["status"], "user")).contains("element count"));
    let said = operate(&ca, &inside, &change, "user");
    assert!(said.status.success(), "with the token: {}", text(&said));
    let page = plain.http.to_string();
    assert!(text(&operate(&ca, &page, &["status"], "")).contains("element count"));
    let said = operate(&ca, &page, &change, "");
    assert!(!said.status.success() && text(&said).contains("TLS"), "{}", text(&said));
}
