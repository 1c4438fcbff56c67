//! Names that are nowhere at first, and then elsewhere; and that who is asked answers, or nobody. In a network and with a
//! list of hosts of their own.

use super::{scratch, skipped};
use std::process::{Command, Output};

/// What a script says in such a place; `None`, and a SKIPPED line, where there is none to be had.
fn in_a_place_of_its_own(what: &str, script: &str) -> Option<Output> {
    let possible = Command::new("unshare").args(["-rmn", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        skipped(what, "unshare is not allowed");
        return None;
    }
    let hosts = scratch(&format!("hosts-{what}"));
    std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("hosts");
    let begin = "set -eu; ip link set lo up; mount --bind \"$HOSTS\" /etc/hosts; trap 'kill $(jobs -p) 2>/dev/null' EXIT
        R=\"$REGISTRAR --config=off --transport=tcp --asapannounce=off --enrpannounce=off --loglevel=info --logcolor=off\"
        soon() { for try in $(seq 200); do \"$@\" && return; sleep 0.05; done; echo \"not within 10 s: $*\" >&2; return 1; }
        now() { date +%s%N; }\n";
    let output = Command::new("unshare")
        .args(["-rmn", "timeout", "60", "bash", "-c", &format!("{begin}{script}")])
        .env("HOSTS", &hosts)
        .env("LOG", scratch(&format!("log-{what}")))
        .env("REGISTRAR", env!("CARGO_BIN_EXE_rspregistrar"))
        .env("RSPCTL", env!("CARGO_BIN_EXE_rspctl"))
        .env_remove("RSP_REGISTRAR")
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{}{said}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    Some(output)
}

/// A peer whose name is not known yet is a warning; it is found when the name is known, and again after it has moved.
#[test]
fn a_peer_by_name_is_found_when_its_name_is_and_where_it_moves_to() {
    const SCRIPT: &str = r#"
        at() { $R --asap=127.0.0.$1:3863 --enrp=127.0.0.$1:9901 2>/dev/null >/dev/null & other=$!; }
        peers() { "$RSPCTL" peers 2>/dev/null | grep -q "127.0.0.$1:9901"; }
        at 2
        $R --asap=127.0.0.1:3863 --enrp=127.0.0.1:9901 --peer=other.test --http=8863 2>"$LOG" >/dev/null &
        soon grep -q 'other.test.*will try again' "$LOG"
        soon grep -q 'is ready' "$LOG"
        begin=$(now)
        echo '127.0.0.2 other.test' >>"$HOSTS"
        soon peers 2
        echo "known: $((($(now) - begin) / 1000000))"
        kill $other
        wait $other || true
        at 3
        begin=$(now)
        printf '127.0.0.1 localhost\n127.0.0.3 other.test\n' >"$HOSTS"
        soon peers 3
        echo "moved: $((($(now) - begin) / 1000000))"
    "#;
    let Some(output) = in_a_place_of_its_own("peer", SCRIPT) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for step in ["known: ", "moved: "] {
        let milliseconds = said.lines().find_map(|line| line.strip_prefix(step)?.parse::<u64>().ok());
        assert!(milliseconds.is_some_and(|took| took < 8000), "{said}");
    }
    println!("{said}");
}

/// Who names a registrar wants its answer, not that of another at the usual place.
#[test]
fn who_is_asked_answers_or_nobody() {
    const SCRIPT: &str = r#"
        $R --asap=127.0.0.1:3863 --enrp=127.0.0.1:9901 2>"$LOG" >/dev/null &
        soon grep -q 'is ready' "$LOG"
        "$RSPCTL" resolve nothing 2>&1 | grep -E 'no such pool|answered' >&2 || exit 3
        for asked in 127.0.0.9:3863 nowhere.test; do
            ! "$RSPCTL" resolve --registrar "$asked" nothing >"$LOG.answer" 2>&1
            grep -q 'no registrar' "$LOG.answer" || { cat "$LOG.answer" >&2; exit 4; }
            ! grep -qE '127.0.0.1|localhost' "$LOG.answer"
        done
        ! RSP_REGISTRAR=127.0.0.9 "$RSPCTL" resolve nothing >"$LOG.answer" 2>&1
        grep -q 'no registrar' "$LOG.answer" || { cat "$LOG.answer" >&2; exit 5; }
    "#;
    in_a_place_of_its_own("asked", SCRIPT);
}
