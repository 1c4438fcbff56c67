//! The man pages in `docs/man`: one for every function, with the errors that the header names and that a C test
//! provokes, no more and no less; and the options of the programs. `scripts/man` builds them, mandoc has no
//! complaints.
#![allow(clippy::disallowed_methods)]

#[path = "common/skip.rs"]
mod skip;

use skip::skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A page: its name with the section, and its source.
struct Page {
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.expect("readable folder").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    paths.sort();
    paths
}

fn pages() -> Vec<Page> {
    let sources = files("docs/man", ".scd").into_iter();
    let pages = sources.map(|path| {
        let name = path.file_stem().expect("name").to_string_lossy().into_owned();
        Page { name, text: read(&path) }
    });
    pages.collect()
}

impl Page {
    /// The functions (or programs) that it is about.
    fn names(&self) -> BTreeSet<String> {
        let line = self.text.lines().find(|line| line.contains(" - ")).expect("a NAME line");
        let names = line.split(" - ").next().unwrap_or_default();
        names.split(", ").map(String::from).collect()
    }

    fn section(&self, title: &str) -> Option<&str> {
        let start = self.text.find(&format!("\n# {title}\n"))? + 1;
        let rest = &self.text[start..];
        Some(&rest[..rest[1..].find("\n# ").map_or(rest.len(), |end| end + 1)])
    }

    /// The entries of ERRORS: errno values, or RSPERR_ codes.
    fn errors(&self) -> BTreeSet<String> {
        let lines = self.section("ERRORS").unwrap_or_default().lines();
        let entries = lines.filter_map(|line| line.strip_prefix('*')?.strip_suffix('*'));
        entries.map(String::from).collect()
    }
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Words of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether a word is an errno's name.
fn is_errno(word: &str) -> bool {
    word.len() > 2
        && word.starts_with('E')
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        && !["ENRP", "EOR"].contains(&word)
}

/// What the C tests provoke: the function, and the error.
fn provoked() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for path in files("tests/c", ".c") {
        let text = read(&path);
        for mark in ["FAILS(", "FAILED(", "SETS(", "SAME(RSPERR_"] {
            for (at, _) in text.match_indices(mark) {
                let rest = &text[at + mark.find('(').unwrap_or(0) + 1..];
                let mut words = words(rest);
                let error = words.next().unwrap_or_default().to_owned();
                if let Some(function) = words.next().filter(|word| word.starts_with("rsp_")) {
                    found.insert((function.to_owned(), error));
                }
            }
        }
    }
    assert!(found.len() > 100, "only {} errors are provoked", found.len());
    found
}

/// The functions of the headers, with the comment in front of each.
fn prototypes() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for path in files("include/rserpool", ".h") {
        let (mut comment, mut inside) = (String::new(), false);
        for line in read(&path).lines() {
            if line.starts_with("/*") {
                comment.clear();
                inside = true;
            }
            if inside {
                comment.push_str(line);
                comment.push('\n');
                inside = !line.contains("*/");
            } else if let Some((before, _)) = line.split_once('(')
                && let Some(function) = words(before).last()
                && (function.starts_with("rsp_") || function.starts_with("tagList"))
                && !line.starts_with([' ', '#'])
            {
                found.insert(function.to_owned(), comment.clone());
            }
        }
    }
    assert!(found.len() >= 60, "only {} functions in the headers", found.len());
    found
}

#[test]
fn every_function_and_program_has_a_page() {
    let named: BTreeSet<String> = pages().iter().flat_map(Page::names).collect();
    let functions = prototypes().into_keys();
    let programs = ["rspregistrar", "rspctl", "rserpool"].map(String::from);
    let wanted: BTreeSet<String> = functions.chain(programs).collect();
    let missing = wanted.difference(&named).map(|name| format!("{name}: no man page"));
    let strange = named.difference(&wanted).map(|name| format!("{name}: a man page of nothing"));
    report(missing.chain(strange).collect());
}

#[test]
fn every_page_has_what_a_page_must_have() {
    let mut problems = Vec::new();
    for page in pages() {
        let mut wanted = vec!["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"];
        if page.name.ends_with(".3") {
            wanted.push("RETURN VALUE");
            // Each name's prototype stands there.
            let synopsis = page.section("SYNOPSIS").unwrap_or_default();
            let missing = page.names().into_iter().filter(|name| !synopsis.contains(&format!("{name}(")));
            problems.extend(missing.map(|name| format!("{}: no prototype of {name}", page.name)));
        }
        let missing = wanted.into_iter().filter(|title| page.section(title).is_none());
        problems.extend(missing.map(|title| format!("{}: no {title}", page.name)));
    }
    report(problems);
}

/// Prototypes without layout and names of parameters.
fn plain(prototype: &str) -> String {
    prototype.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(")
}

#[test]
fn prototypes_are_the_headers() {
    let headers: String = files("include/rserpool", ".h").iter().map(|path| read(path)).collect();
    let headers = plain(&headers);
    let mut problems = Vec::new();
    for page in pages().into_iter().filter(|page| page.name.ends_with(".3")) {
        let synopsis = page.section("SYNOPSIS").unwrap_or_default().to_owned();
        let code: String =
            synopsis.lines().filter(|line| !line.starts_with(['#', '`'])).collect::<Vec<_>>().join("\n");
        for prototype in code.split(';').map(plain).filter(|prototype| !prototype.is_empty()) {
            // rsp_cleanup's and those without parameters are alike.
            if !headers.contains(&format!("{prototype};")) {
                problems.push(format!("{}: not in a header: {prototype}", page.name));
            }
        }
    }
    report(problems);
}

#[test]
fn every_error_on_a_page_is_provoked_by_a_c_test() {
    let provoked = provoked();
    let mut problems = Vec::new();
    for page in pages().into_iter().filter(|page| page.name.ends_with(".3")) {
        let names = page.names();
        let here: BTreeSet<String> = provoked
            .iter()
            .filter(|(function, _)| names.contains(function))
            .map(|(_, error)| error.clone())
            .filter(|error| error != "RSPERR_OKAY")
            .collect();
        let errors = page.errors();
        problems.extend(
            errors.difference(&here).map(|error| format!("{}: no C test provokes {error}", page.name)),
        );
        problems
            .extend(here.difference(&errors).map(|error| format!("{}: does not know {error}", page.name)));
    }
    report(problems);
}

#[test]
fn headers_and_pages_name_the_same_errors() {
    let prototypes = prototypes();
    let mut problems = Vec::new();
    for page in pages().into_iter().filter(|page| page.name.ends_with(".3")) {
        let comments = page.names().into_iter().filter_map(|name| prototypes.get(&name));
        let in_header: BTreeSet<&str> =
            comments.flat_map(|comment| words(comment)).filter(|word| is_errno(word)).collect();
        let errors = page.errors();
        let errors: BTreeSet<&str> =
            errors.iter().map(String::as_str).filter(|error| is_errno(error)).collect();
        problems.extend(
            errors.difference(&in_header).map(|error| format!("{}: {error} is not in the header", page.name)),
        );
        if !errors.is_empty() {
            problems.extend(
                in_header
                    .difference(&errors)
                    .map(|error| format!("{}: {error} is only in the header", page.name)),
            );
        }
    }
    report(problems);
}

/// The long options in a text: what stands behind two dashes.
fn options(text: &str) -> BTreeSet<String> {
    let found = text.match_indices("--").filter_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        let name: String =
            text[at + 2..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let whole = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-');
        (whole && name.len() > 1).then_some(name)
    });
    found.collect()
}

/// The options that a page or a section of one defines: in bold at the beginning of a line.
fn defined(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('*'));
    lines.flat_map(options).collect()
}

fn help(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg("--help").output().expect("run");
    assert!(output.status.success(), "{program} {arguments:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

/// Only what the help defines, not what it mentions: options stand first on their lines.
fn offered(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.filter_map(|line| options(line).into_iter().next_back().map(|_| first_option(line))).collect()
}

fn first_option(line: &str) -> String {
    let at = line.find("--").expect("a long option") + 2;
    line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

fn same_options(what: &str, page: &BTreeSet<String>, help: &BTreeSet<String>) -> Vec<String> {
    let missing = help.difference(page).map(|option| format!("{what}: --{option} is not on the page"));
    let strange = page.difference(help).map(|option| format!("{what}: --{option} is not in --help"));
    missing.chain(strange).collect()
}

fn page(name: &str) -> Page {
    pages().into_iter().find(|page| page.name == name).unwrap_or_else(|| panic!("no page {name}"))
}

#[test]
fn the_registrars_options_are_on_its_page() {
    let help = offered(&help(env!("CARGO_BIN_EXE_rspregistrar"), &[]));
    assert!(help.len() > 30, "only {help:?}");
    report(same_options("rspregistrar", &defined(page("rspregistrar.1").section("OPTIONS").unwrap()), &help));
}

#[test]
fn the_tools_options_are_on_its_page() {
    let page = page("rspctl.1");
    let mut general: BTreeSet<String> = ["help", "version"].map(String::from).into();
    // Those about TLS go with every command.
    general.extend(defined(page.section("TLS").expect("section")));
    assert_eq!(offered(&help(env!("CARGO_BIN_EXE_rspctl"), &[])), general);
    let description = page.section("DESCRIPTION").unwrap();
    assert!(description.contains("--help") && description.contains("--version"));
    let mut problems = Vec::new();
    for (title, command) in [
        ("RESOLVE", &["resolve"][..]),
        ("REGISTER", &["register"]),
        ("PROXY", &["proxy"]),
        ("WATCH", &["watch"]),
        ("DNS", &["dns"]),
        ("RUN", &["run"]),
        ("DECODE", &["decode"]),
        ("EVENTS", &["events"]),
        ("DOCTOR", &["doctor"]),
        ("BENCH RESOLVE", &["bench", "resolve"]),
    ] {
        let help = offered(&help(env!("CARGO_BIN_EXE_rspctl"), command));
        let help = help.difference(&general).cloned().collect();
        problems.extend(same_options(title, &defined(page.section(title).expect("section")), &help));
    }
    for (title, commands) in [
        ("POOLS, ELEMENTS, PEERS, STATUS, MIB", &["pools", "elements", "peers", "status", "mib"]),
        (
            "DRAIN, UNDRAIN, SET, DEREGISTER, MAINTENANCE",
            &["drain", "undrain", "set", "deregister", "maintenance"],
        ),
    ] {
        let help =
            commands.iter().flat_map(|command| offered(&help(env!("CARGO_BIN_EXE_rspctl"), &[command])));
        let help = help.filter(|option| !general.contains(option)).collect();
        // The options of "set" share an entry.
        let section = page.section(title).expect("section");
        problems.extend(same_options(title, &defined(section), &help));
    }
    report(problems);
}

/// Every setting of the library is on its page, and in the README's table.
#[test]
fn variables_and_switches_are_on_their_pages() {
    let overview = page("rserpool.7");
    let readme = read(&root().join("README.md"));
    let settings = page("rsp_initinfo.3").text;
    let environment = overview.section("ENVIRONMENT").unwrap();
    let source = read(&root().join("src/runtime/settings.rs")) + &read(&root().join("src/ffi/logging.rs"));
    let mut problems = Vec::new();
    let mut seen = 0;
    for word in source.split('"').filter(|word| word.starts_with("RSP_") || word.starts_with("CSP_")) {
        if !word.contains(|c: char| !c.is_ascii_uppercase() && c != '_') {
            seen += 1;
            if !environment.contains(&format!("*{word}*")) {
                problems.push(format!("rserpool.7: {word} is missing"));
            }
            if !readme.contains(&format!("| `{word}` |")) {
                problems.push(format!("README.md: {word} is missing"));
            }
        }
    }
    for source in ["src/ffi/info.rs", "src/ffi/logging.rs"] {
        let text = read(&root().join(source));
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in code.split('"').filter(|word| word.starts_with('-') && !word.contains(' ')) {
            let switch = word.trim_end_matches('=');
            seen += 1;
            if switch != "-log" && !settings.contains(&format!("*{switch}*")) {
                problems.push(format!("rsp_initinfo.3: {switch} is missing"));
            }
            if switch != "-log" && !readme.contains(&format!("`{switch}")) {
                problems.push(format!("README.md: {switch} is missing"));
            }
        }
    }
    assert!(seen > 30, "only {seen} settings found");
    report(problems);
}

#[test]
fn the_pages_build_and_mandoc_has_no_complaints() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    if let Err(error) = Command::new("scdoc").arg("-v").output() {
        return skipped("man pages", &format!("scdoc: {error}"));
    }
    let built = Command::new(root().join("scripts/man")).arg(&folder).output().expect("scripts/man");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let names: usize = pages().iter().map(|page| page.names().len()).sum();
    let made: Vec<PathBuf> =
        fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    assert_eq!(made.len(), names, "a page, or a reference to one, for each name");
    let mut problems = Vec::new();
    for path in made {
        let text = read(&path);
        if let Some(to) = text.strip_prefix(".so man") {
            let target = folder.join(to.trim().split_once('/').expect("section").1);
            assert!(target.exists(), "{} refers to nothing", path.display());
            continue;
        }
        let output = match Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&path).output() {
            Ok(output) => output,
            Err(error) => return skipped("checking of man pages", &format!("mandoc: {error}")),
        };
        let lint = String::from_utf8_lossy(&output.stdout).into_owned();
        // scdoc's way of making paragraphs.
        let lines = lint.lines().filter(|line| !line.contains("skipping paragraph macro"));
        problems.extend(lines.map(String::from));
    }
    fs::remove_dir_all(&folder).expect("remove");
    report(problems);
}
