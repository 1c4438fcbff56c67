//! Reads the source: the arrows between the rooms and within them, leftovers, that every public C function has its header line
//! and C test, and that documents name only what is there. Man pages: `man.rs`.
#![allow(clippy::disallowed_methods)]

#[path = "common/names.rs"]
mod names;

use names::{Arrow, Modules};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What may not be written below `runtime/`.
const IMPURE: &[&str] =
    &["std::thread", "std::sync::Mutex", "parking_lot", "Instant::now", "SystemTime", "mio::", "nix::"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with one of the endings.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The crates of this package: the library and the programs, with what both of these share; and the preload library.
fn crates() -> [(&'static str, Modules); 4] {
    let of = |folder: &str, file| Modules::read(&root().join(folder), file);
    let program = |folder| (folder, of(folder, "main.rs").take_in(&root().join(folder), "main.rs"));
    let preload = "preload/src";
    [
        ("src", of("src", "lib.rs")),
        program("src/bin/rspregistrar"),
        program("src/bin/rspctl"),
        (preload, of(preload, "lib.rs")),
    ]
}

/// Which rooms a room may name: the arrows that docs/ARCHITECTURE.md draws, from the table beside the picture.
fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    let document = read(&root().join("docs/ARCHITECTURE.md"));
    let table = document.lines().skip_while(|line| !line.starts_with("| room | names |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let mut rooms = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let room = quoted(cells[0]).next().unwrap_or_default().trim_end_matches('/');
        rooms.insert(
            room.to_string(),
            quoted(cells[1]).map(|room| room.trim_end_matches('/').into()).collect(),
        );
    }
    assert!(rooms.len() >= 7, "no table of rooms in docs/ARCHITECTURE.md");
    rooms
}

#[test]
fn only_the_arrows_drawn_exist() {
    let drawn = drawn();
    let [(_, modules), ..] = crates();
    let arrows = modules.arrows();
    let between = |Arrow { from, to }: &Arrow| Some((from.first()?.clone(), to.first()?.clone()));
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    let mut problems = Vec::new();
    for arrow in &arrows {
        let Some((room, other)) = between(arrow).filter(|(room, other)| room != other && room != "fuzz")
        else {
            continue;
        };
        match drawn.get(&room) {
            None => problems.push(format!("{}: {room} is not drawn", name(modules.path(&arrow.from)))),
            Some(allowed) if !allowed.contains(&other) => {
                problems.push(format!("{}: {room} may not name {other}", name(modules.path(&arrow.from))));
            }
            _ => {}
        }
        used.insert((room, other));
    }
    // What is drawn exists.
    for (room, allowed) in drawn.iter().filter(|(room, _)| *room != "bin") {
        let missing = allowed.iter().filter(|other| !used.contains(&(room.clone(), (*other).clone())));
        problems.extend(missing.map(|other| format!("docs/ARCHITECTURE.md: {room} does not name {other}")));
    }
    report(problems);
}

#[test]
fn files_name_each_other_in_one_direction() {
    let mut problems = Vec::new();
    for (folder, modules) in crates() {
        let arrows = modules.arrows();
        for circle in names::circles(&arrows) {
            problems.push(format!("{folder}: a circle: {}", circle.join(", ")));
            let members: Vec<Vec<String>> =
                circle.iter().map(|member| member.split('/').map(String::from).collect()).collect();
            let inside = |module: &Vec<String>| members.iter().position(|member| module.starts_with(member));
            for Arrow { from, to } in &arrows {
                if inside(from).is_some() && inside(to).is_some() && inside(from) != inside(to) {
                    problems.push(format!("    {} -> {}", from.join("/"), to.join("/")));
                }
            }
        }
    }
    report(problems);
}

/// The steps of `socket/`, from the table at its head.
#[test]
fn the_steps_of_socket_only_go_down() {
    let text = read(&root().join("src/socket/mod.rs"));
    let rows = text.lines().skip_while(|line| !line.starts_with("//! | step |")).skip(2);
    let steps: Vec<&str> =
        rows.take_while(|line| line.starts_with("//! |")).filter_map(|line| quoted(line).next()).collect();
    assert_eq!(steps, ["api", "descriptor", "session", "channel", "readiness"]);
    let mut problems = Vec::new();
    for row in text.lines().filter(|line| line.starts_with("//! | `")) {
        let cells: Vec<&str> = row.trim_start_matches("//! ").trim_matches('|').split(" | ").collect();
        let (Some(step), Some(files)) = (quoted(cells[0]).next(), cells.get(2)) else { continue };
        let told: BTreeSet<&str> = quoted(files).filter(|name| *name != "mod").collect();
        let head = read(&root().join(format!("src/socket/{step}/mod.rs")));
        let modules: BTreeSet<&str> = modules_of(&head).into_keys().collect();
        let other = told.symmetric_difference(&modules);
        problems.extend(other.map(|file| format!("src/socket/mod.rs: {step} with or without {file}?")));
    }
    let [(_, modules), ..] = crates();
    let place = |module: &[String]| match module {
        [room, step, ..] if room == "socket" => steps.iter().position(|known| known == step),
        _ => None,
    };
    for Arrow { from, to } in modules.arrows() {
        let root = to.len() == 1 && to[0] == "socket";
        if let Some(at) = place(&from)
            && (root || place(&to).is_some_and(|other| other < at))
        {
            problems.push(format!("{} -> {}", from.join("/"), to.join("/")));
        }
    }
    report(problems);
}

/// What the table of files at a head says that there is; `None`: it has none.
fn told_of_files(text: &str) -> Option<BTreeSet<&str>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("//! | file |")).skip(2).peekable();
    lines.peek()?;
    let rows = lines.take_while(|line| line.starts_with("//! |"));
    let names = rows.flat_map(|row| quoted(row.split('|').nth(1).unwrap_or_default()));
    Some(names.filter(|name| *name != "mod").collect())
}

/// The modules that a head has in files of their own, and whether each is for tests only.
fn modules_of(text: &str) -> BTreeMap<&str, bool> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, name)) = line.strip_suffix(';').and_then(|line| line.split_once("mod ")) else {
            continue;
        };
        if before.is_empty() || (before.starts_with("pub") && before.ends_with(' ')) {
            let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
            found.insert(name, attributes.any(|line| *line == "#[cfg(test)]"));
        }
    }
    found
}

/// Where a head has a table of files, it has them all, and no others.
#[test]
fn tables_of_files_are_whole() {
    let (mut problems, mut tables) = (Vec::new(), 0);
    for path in files("src", &[".rs"]).into_iter().chain(files("preload", &[".rs"])) {
        let text = read(&path);
        let Some(told) = told_of_files(&text) else { continue };
        tables += 1;
        let modules = modules_of(&text);
        let missing = modules.iter().filter(|(module, for_tests)| !**for_tests && !told.contains(*module));
        problems.extend(missing.map(|(module, _)| format!("{}: no row for {module}", name(&path))));
        let gone = told.iter().filter(|told| !modules.contains_key(*told));
        problems.extend(gone.map(|gone| format!("{}: a row for {gone}, and no such file", name(&path))));
    }
    assert!(tables >= 10, "only {tables} tables of files found");
    report(problems);
}

/// The names that several types of a crate have, and why.
const MEANINGS: [(&str, &str); 6] = [
    ("Config", "of each of the two machines, whose users never see both"),
    ("Event", "of each of the two machines"),
    ("Registration", "the same thing twice: as a program asks for it, and as the machine keeps it"),
    (
        "Role",
        "a session's (RFC 5352 section 1.1); a registrar's links have some as well, and that machine has no sessions",
    ),
    ("Timer", "RFC 5352's, and RFC 5353's in the registrar's machine"),
    ("What", "what a client asks, and what happened at a registrar: fields of that name"),
];

/// One meaning per type name within a crate; tests, fuzz targets and functions may call their own things what they like.
#[test]
fn a_type_name_means_one_thing() {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for (_, modules) in crates() {
        for (word, mut paths) in modules.types() {
            paths.retain(|path| !name(path).starts_with("src/fuzz"));
            if paths.len() < 2 {
                continue;
            }
            match MEANINGS.iter().find(|(known, _)| *known == word) {
                Some((known, _)) => {
                    used.insert(*known);
                }
                None => {
                    let places: Vec<String> = paths.into_iter().map(name).collect();
                    problems.push(format!("{word} is defined in {}", places.join(", ")));
                }
            }
        }
    }
    let unused = MEANINGS.iter().filter(|(known, _)| !used.contains(known));
    problems.extend(unused.map(|(known, _)| format!("{known} has one meaning only: strike it")));
    report(problems);
}

/// What the checks above rest on.
#[test]
fn groups_do_not_hide_what_they_name() {
    let folder = std::env::temp_dir().join(format!("tidy-{}", std::process::id()));
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("lib.rs", "pub mod a;\npub mod b;\n");
    write("a/mod.rs", "pub mod x;\nmod y;\npub use y::{self, Thing as Other, Deep};\n");
    write("a/x.rs", "use crate::{\n    a::{Deep},\n    b::{self, c::{D, E}},\n};\n// use crate::d;\n");
    write("a/y.rs", "pub struct Deep(super::x::X);\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n");
    write("b/mod.rs", "pub mod c;\n");
    write("b/c.rs", "fn f() -> crate::a::Deep { todo() }\n");
    let arrows = Modules::read(&folder, "lib.rs").arrows();
    let shown: Vec<String> =
        arrows.iter().map(|Arrow { from, to }| format!("{}>{}", from.join("."), to.join("."))).collect();
    fs::remove_dir_all(&folder).expect("removable");
    assert_eq!(shown, ["a>a.y", "a.x>a.y", "a.x>b", "a.x>b.c", "a.y>a.x", "b.c>a.y"]);
    assert_eq!(names::circles(&arrows), [vec!["a", "b"], vec!["a/x", "a/y"]]);
}

#[test]
fn macros_do_not_hide_what_they_define() {
    let above = std::env::temp_dir().join(format!("tidy-types-{}", std::process::id()));
    let folder = above.join("program");
    fs::create_dir_all(&folder).expect("a folder");
    let write = |file: &str, text: &str| fs::write(folder.join(file), text).expect("a file");
    write(
        "main.rs",
        "#[path = \"../shared.rs\"]\n#[allow(dead_code)]\nmod other;\nstruct Top;\nfn f() {\n    enum Local {}\n}\n",
    );
    write(
        "made.rs",
        "macro_rules! made {\n    ($name:ident) => {\n        pub struct Fixed;\n        struct $name;\n    };\n}\nmade! {\n    /// That.\n    struct Given\n}\n",
    );
    write("../shared.rs", "type Shared = u8;\n");
    let modules = Modules::read(&folder, "main.rs").take_in(&folder, "main.rs");
    let found: Vec<String> = modules.types().into_keys().collect();
    fs::remove_dir_all(&above).expect("removable");
    assert_eq!(found, ["Fixed", "Given", "Shared", "Top"]);
}

#[test]
fn a_table_is_read_to_its_end() {
    let text = "//! | file | what |\n//! |---|---|\n//! | `mod`, `a` | `no` |\n//! | `b` | x |\n\npub mod a;\n#[cfg(test)]\nmod b;\n";
    assert_eq!(told_of_files(text), Some(BTreeSet::from(["a", "b"])));
    assert_eq!(modules_of(text), BTreeMap::from([("a", false), ("b", true)]));
    assert_eq!(told_of_files("//! Nothing.\n"), None);
}

#[test]
fn nothing_below_runtime_touches_clock_threads_or_sockets() {
    let mut problems = Vec::new();
    for room in ["wire", "handlespace", "machine", "dns"] {
        for path in files(&format!("src/{room}"), &[".rs"]) {
            for (number, line) in read(&path).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                    problems.push(format!("{}:{}: {word}", name(&path), number + 1));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn nothing_is_left_over() {
    // Put together so that this file does not find itself.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let marks = ["FIX", "TO", "XX"].iter().zip(["ME", "DO", "X"]).map(|(a, b)| format!("{a}{b}"));
    let words: Vec<String> = words.into_iter().chain(marks).collect();
    let mut problems = Vec::new();
    for folder in [
        "src",
        "tests",
        "benches",
        "c-examples",
        "include",
        "python",
        "fuzz/fuzz_targets",
        "interop",
        "scripts",
    ] {
        for path in files(folder, &[".rs", ".c", ".h", ".py", ".sh"]) {
            for (number, line) in read(&path).lines().enumerate() {
                for word in
                    words.iter().filter(|word| line.contains(word.as_str()) && !line.contains("XXXXXX"))
                {
                    problems.push(format!("{}:{}: {word}", name(&path), number + 1));
                }
            }
        }
    }
    report(problems);
}

/// The `rsp_*` functions of the C API, from the list that the symbol check uses.
fn functions() -> BTreeSet<String> {
    let symbols = read(&root().join("tests/abi/symbols.txt"));
    let functions: BTreeSet<String> =
        symbols.lines().map(str::trim).filter(|line| line.starts_with("rsp_")).map(String::from).collect();
    assert!(functions.len() >= 50, "tests/abi/symbols.txt lists only {} functions", functions.len());
    functions
}

/// One TLS, with one source of cryptography: the library is loaded into programs that have an OpenSSL of their own.
#[test]
fn there_is_one_tls_and_no_c_library_of_it() {
    let lock = read(&root().join("Cargo.lock"));
    let count = |name: &str| lock.matches(&format!("\nname = \"{name}\"\n")).count();
    for one in ["rustls", "ring", "rustls-webpki"] {
        assert_eq!(count(one), 1, "{one}");
    }
    for none in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls", "boring-sys"] {
        assert_eq!(count(none), 0, "{none}");
    }
}

#[test]
fn every_function_stands_in_a_header() {
    let headers: String = files("include", &[".h"]).iter().map(|path| read(path)).collect();
    let missing = functions()
        .into_iter()
        .filter(|function| function != "rsp_socket_internal" && !headers.contains(&format!("{function}(")));
    report(missing.map(|function| format!("{function}: in no header")).collect());
}

#[test]
fn every_function_has_a_c_test() {
    let tests: String = files("tests/c", &[".c"]).iter().map(|path| read(path)).collect();
    let missing = functions().into_iter().filter(|function| !tests.contains(&format!("{function}(")));
    report(missing.map(|function| format!("{function}: in no C test")).collect());
}

#[test]
fn every_c_function_body_is_one_guard() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for path in files("src/ffi", &[".rs"]) {
        let text = read(&path);
        let mut rest = text.as_str();
        while let Some(at) = rest.find("extern \"C\" fn ") {
            rest = &rest[at + "extern \"C\" fn ".len()..];
            let function: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // Function pointer types have no name, declarations no body.
            let (Some(body), end) = (rest.find('{'), rest.find(';').unwrap_or(usize::MAX)) else { continue };
            if function.is_empty() || end < body {
                continue;
            }
            seen += 1;
            if !rest[body + 1..].trim_start().starts_with("guard") {
                problems.push(format!("{}: {function}: the body does not start with a guard", name(&path)));
            }
        }
    }
    assert!(seen >= 50, "only {seen} C functions found in src/ffi");
    report(problems);
}

/// What a document writes between backticks, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a test file has a function of that name.
fn has_function(text: &str, name: &str) -> bool {
    [format!(" {name}("), format!(" {name}(void)"), format!("fn {name}(")]
        .iter()
        .any(|form| text.contains(form))
}

/// What is wrong with a cell of a table that names tests: a file, then functions in it, and so on.
fn named_tests(cell: &str) -> Vec<String> {
    let (mut problems, mut text, mut named) = (Vec::new(), None::<String>, false);
    for word in quoted(cell) {
        let path = if word.ends_with(".c") && !word.contains('/') {
            root().join("tests/c").join(word)
        } else if word.contains('/') {
            root().join(word)
        } else {
            named = true;
            if !text.as_ref().is_some_and(|text| has_function(text, word)) {
                problems.push(format!("no test {word}"));
            }
            continue;
        };
        text = fs::read_to_string(&path).ok();
        if text.is_none() {
            problems.push(format!("no {}", name(&path)));
        }
    }
    if text.is_none() && !named {
        problems.push("no test is named".to_owned());
    }
    problems
}

#[test]
fn every_difference_to_rsplib_has_a_test() {
    let document = read(&root().join("docs/compatibility.md"));
    let mut problems = Vec::new();
    let (mut rows, mut differences) = (0, false);
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [old, _, test] = cells[..] else {
            // The end of a table; the line of dashes is no row of it.
            differences &= line.starts_with("|--");
            continue;
        };
        if test == "test" {
            differences = old.starts_with("rsplib");
            continue;
        }
        if !differences {
            continue;
        }
        rows += 1;
        problems.extend(named_tests(test).into_iter().map(|problem| format!("{problem}: {line}")));
    }
    assert!(rows > 20, "only {rows} rows in docs/compatibility.md");
    report(problems);
}

/// `docs/conformance.md`: every statement of the RFCs has a verdict, a reason where it is not followed, and a test that
/// is there; and the table of counts counts what stands below it.
#[test]
fn every_statement_of_the_rfcs_is_decided() {
    const VERDICTS: [&str; 3] = ["conforms", "differs", "absent"];
    let document = read(&root().join("docs/conformance.md"));
    let mut problems = Vec::new();
    let (mut rfc, mut counts) = (String::new(), Vec::<(String, [usize; 4])>::new());
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            rfc = title.strip_prefix("RFC ").map(|title| title.chars().take(4).collect()).unwrap_or_default();
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [section, statement, verdict, place, test] = cells[..] else { continue };
        if rfc.is_empty() || section == "section" || line.starts_with("|--") {
            continue;
        }
        let Some(column) = VERDICTS.iter().position(|known| *known == verdict) else {
            problems.push(format!("{rfc} {section}: \"{verdict}\" is no verdict: {statement}"));
            continue;
        };
        if counts.last().is_none_or(|(last, _)| *last != rfc) {
            counts.push((rfc.clone(), [0; 4]));
        }
        let Some((_, count)) = counts.last_mut() else { continue };
        count[0] += 1;
        count[column + 1] += 1;
        // A reason is more than a file.
        let reason: usize = place.split('`').step_by(2).map(|text| text.trim_matches([' ', ',']).len()).sum();
        if place.is_empty() || (column > 0 && reason < 12) {
            problems.push(format!("{rfc} {section}: no reason: {statement}"));
        }
        problems.extend(
            named_tests(test).into_iter().map(|problem| format!("{rfc} {section}: {problem}: {statement}")),
        );
    }
    let statements: usize = counts.iter().map(|(_, count)| count[0]).sum();
    assert!(statements >= 425, "only {statements} statements in docs/conformance.md");
    for (rfc, [all, conforms, differs, absent]) in counts {
        let row = format!("| {rfc} | {all} | {conforms} | {differs} | {absent} |");
        if !document.contains(&row) {
            problems.push(format!("the table of counts lacks: {row}"));
        }
    }
    report(problems);
}

/// `docs/security.md`: each threat of RFC 5355, and each attempt of a stranger, has an answer and a test that is there;
/// what has none is open, in words.
#[test]
fn every_threat_is_answered_and_tested_or_open() {
    let document = read(&root().join("docs/security.md"));
    let mut problems = Vec::new();
    let (mut sections, mut attempts) = (Vec::new(), 0);
    let (mut threats, mut strangers) = (false, false);
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        match cells[..] {
            ["section", "threat", ..] => threats = true,
            ["attempt", ..] => strangers = true,
            _ if line.starts_with("|--") => {}
            [section, threat, answer, tests, open] if threats => {
                sections.extend(section.split(", ").map(str::to_owned));
                let untested = named_tests(tests);
                if answer.len() < 12 || (!untested.is_empty() && open.len() < 12) {
                    problems.push(format!("{section}: neither answered and tested nor open: {threat}"));
                }
                if tests != "–" {
                    problems.extend(untested.into_iter().map(|problem| format!("{section}: {problem}")));
                }
                if open.is_empty() {
                    problems.push(format!("{section}: open, or not (–)? {threat}"));
                }
            }
            [attempt, answer, tests] if strangers => {
                attempts += 1;
                if answer.is_empty() {
                    problems.push(format!("no answer: {attempt}"));
                }
                // Where no file is named, it is the one above the table.
                let tests = match tests.contains("src/") || tests.contains("tests/") {
                    true => tests.to_owned(),
                    false => format!("`src/machine/registrar/tests/strangers.rs` {tests}"),
                };
                problems
                    .extend(named_tests(&tests).into_iter().map(|problem| format!("{attempt}: {problem}")));
            }
            _ => (threats, strangers) = (false, false),
        }
    }
    let all: Vec<String> = (1..=17).map(|number| format!("2.{number}")).collect();
    assert_eq!(sections, all, "the threats of RFC 5355 in docs/security.md");
    assert!(attempts >= 10, "only {attempts} attempts in docs/security.md");
    report(problems);
}

/// Files that the documents name are there.
#[test]
fn what_documents_name_exists() {
    let mut problems = Vec::new();
    let mut documents = files("docs", &[".md"]);
    documents.extend(["README.md", "tests/README.md"].map(|path| root().join(path)));
    for path in documents {
        let text = read(&path);
        let folders = ["src/", "tests/", "docs/", "scripts/", "include/", "c-examples/"];
        let named = quoted(&text).filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
        for word in named.filter(|word| !word.contains(['*', ' ', '<'])) {
            if !root().join(word.trim_end_matches('/')).exists() {
                problems.push(format!("{}: no {word}", name(&path)));
            }
        }
        // Links, relative to the document or to the root.
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let here = path.parent().unwrap_or(root()).join(target);
            if !target.is_empty() && !target.contains("://") && !here.exists() {
                problems.push(format!("{}: no {target}", name(&path)));
            }
        }
    }
    report(problems);
}

/// A table is a head, a line of dashes, and rows as wide as the head.
#[test]
fn tables_have_rows_as_wide_as_their_heads() {
    // A bar within code or escaped is none.
    fn cells(line: &str) -> usize {
        let mut code = false;
        let mut before = ' ';
        let bars = line.chars().filter(|&this| {
            code ^= this == '`';
            let bar = this == '|' && !code && before != '\\';
            before = this;
            bar
        });
        bars.count().saturating_sub(1)
    }
    let is_rule = |line: &str| line.starts_with("|-") && line.chars().all(|c| "|-: ".contains(c));
    let mut documents = files("docs", &[".md"]);
    documents.extend(["README.md", "CONTRIBUTING.md", "python/README.md"].map(|file| root().join(file)));
    let (mut problems, mut tables) = (Vec::new(), 0);
    for path in documents {
        let text = read(&path);
        let lines: Vec<_> = text.lines().collect();
        for rule in (1..lines.len()).filter(|&at| is_rule(lines[at])) {
            tables += 1;
            let rows: Vec<_> = lines[rule + 1..].iter().take_while(|line| line.starts_with('|')).collect();
            if rows.is_empty() {
                problems.push(format!("{}:{}: a table without rows", name(&path), rule + 1));
            }
            let wide = cells(lines[rule - 1]);
            for (row, line) in rows.iter().enumerate().filter(|(_, line)| cells(line) != wide) {
                problems.push(format!(
                    "{}:{}: {} cells, the head has {wide}",
                    name(&path),
                    rule + 2 + row,
                    cells(line)
                ));
            }
        }
    }
    assert!(tables > 50, "only {tables} tables found");
    report(problems);
}

#[test]
fn every_function_has_a_python_prototype() {
    let prototypes = read(&root().join("python/src/rserpool/_abi.py"));
    let known = |function: &String| {
        prototypes.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == function)
    };
    // Not in any header.
    let missing =
        functions().into_iter().filter(|function| function != "rsp_socket_internal" && !known(function));
    report(missing.map(|function| format!("{function}: not in python/src/rserpool/_abi.py")).collect());
}

/// The crate's API grows without breaking its users: what is public in it is named here, and what only tells something, an
/// error or how something is to be done, may get more fields (cargo-semver-checks).
#[test]
fn the_api_is_what_it_says_and_can_grow() {
    let shown = |file: &str| -> Vec<String> {
        let text = read(&root().join(file));
        let lines: Vec<&str> = text.lines().collect();
        let name =
            |line: &str| line.strip_prefix("pub mod ").map(|name| name.trim_end_matches(';').to_owned());
        let is_hidden = |n: usize| {
            let mut attributes = lines[..n].iter().rev().take_while(|line| line.starts_with("#["));
            attributes.any(|line| line.contains("doc(hidden)"))
        };
        let modules = lines.iter().enumerate().filter_map(|(n, line)| Some((n, name(line)?)));
        modules.filter(|(n, _)| !is_hidden(*n)).map(|(_, name)| name).collect()
    };
    assert_eq!(shown("src/lib.rs"), ["wire", "runtime", "socket"]);
    assert_eq!(shown("src/runtime/mod.rs"), ["why"]);
    assert_eq!(shown("src/wire/mod.rs"), ["handle", "param", "policy"]);
    let mut problems = Vec::new();
    for file in files("src/runtime", &[".rs"]).into_iter().chain(files("src/socket", &[".rs"])) {
        let text = read(&file);
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))
            else {
                continue;
            };
            let item: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            let grows = ["Stats", "Status", "Error", "Parameters", "Note", "Notification"]
                .iter()
                .any(|end| item.ends_with(end));
            let mut attributes = lines[..n].iter().rev().take_while(|line| line.starts_with("#["));
            if grows && !attributes.any(|line| line.contains("non_exhaustive")) {
                problems.push(format!("{}: {item} is not #[non_exhaustive]", name(&file)));
            }
        }
    }
    report(problems);
}
