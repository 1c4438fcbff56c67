//! What the registrar is to do: the command line, and behind it the file. A key of the file is an option's
//! long name, so that both have the same words, values and complaints.

use super::options::{Options, with_two_dashes};
use crate::usage;
use clap::error::ContextKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Read where no file is named, if it is there.
const DEFAULT_FILE: &str = "/etc/rserpool/registrar.toml";
/// Options that only the command line has.
const NOT_IN_FILES: [&str; 5] = ["config", "check", "completions", "help", "version"];
/// Options that a reload takes; the others need a restart.
const TAKEN_AT_RELOAD: &[&str] = &[
    "autoclosetimeout",
    "actionlogfile",
    "cspinterval",
    "cspserver",
    "distancestep",
    "downtime",
    "endpointkeepalivetimeoutinterval",
    "endpointkeepalivetransmissioninterval",
    "httptoken",
    "logappend",
    "logfile",
    "logformat",
    "loglevel",
    "logquiet",
    "maxbadpereports",
    "maxconnections",
    "maxelements",
    "maxelementsperhtrequest",
    "maxeurate",
    "maxhresitems",
    "maxhrrate",
    "maxincrement",
    "maxmetricpools",
    "mentordiscoverytimeout",
    "minaddressscope",
    "object",
    "peer",
    "peerheartbeatcycle",
    "peermaxtimelastheard",
    "peermaxtimenoresponse",
    "quiet",
    "scalar",
    "serverannouncecycle",
    "statsfile",
    "statsinterval",
    "supporttakeoversuggestion",
    "takeoverexpiryinterval",
    "uptime",
];

/// Why there is no configuration.
#[derive(Debug)]
pub enum Failure {
    /// What the command line's parser says; `--help` and `--version` too.
    Usage(clap::Error),
    /// What is wrong, with the option or the place in the file.
    Wrong(String),
}

/// Command line and file together.
#[derive(Debug)]
pub struct Configuration {
    pub options: Options,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where in the file an option stands.
    places: BTreeMap<String, String>,
    /// The values of all options as written, to find what changed.
    values: BTreeMap<String, Vec<OsString>>,
}

/// What a reload found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub taken: Vec<String>,
    pub need_restart: Vec<String>,
}

impl Configuration {
    /// Reads the command line (without the program's name) and the file that it names, or the usual one.
    pub fn load(arguments: &[OsString]) -> Result<Configuration, Failure> {
        let arguments: Vec<OsString> = arguments.iter().cloned().map(with_two_dashes).collect();
        let given = matches(&arguments).map_err(Failure::Usage)?;
        let mut all = Vec::new();
        let mut places = BTreeMap::new();
        let (file, text) = read(&given).map_err(Failure::Wrong)?;
        if let Some(path) = &file {
            let entries = entries(path, &text).map_err(Failure::Wrong)?;
            for Entry { option, arguments, place } in entries {
                if given.value_source(&option) != Some(ValueSource::CommandLine) {
                    all.extend(arguments.into_iter().map(OsString::from));
                    places.insert(option.replace('_', "-"), place);
                }
            }
        }
        all.extend(arguments);
        let matches = matches(&all).map_err(Failure::Usage)?;
        let options = Options::from_arg_matches(&matches).map_err(Failure::Usage)?;
        Ok(Configuration { options, file, places, values: values(&matches) })
    }

    /// What is wrong with an option, with the place in the file where it was set there.
    pub fn explain(&self, wrong: String) -> String {
        let option = wrong.strip_prefix("--").and_then(|rest| rest.split(['=', ':']).next());
        match option.and_then(|option| self.places.get(option)) {
            Some(place) => format!("{place}: {}", &wrong[2..]),
            None => wrong,
        }
    }

    /// What a newer configuration changes. What needs a restart stays as it is here.
    pub fn compare(&mut self, newer: &Configuration) -> Changes {
        let mut changes = Changes::default();
        for (name, values) in &newer.values {
            if self.values.get(name) == Some(values) {
                continue;
            }
            if TAKEN_AT_RELOAD.contains(&name.as_str()) {
                self.values.insert(name.clone(), values.clone());
                changes.taken.push(name.clone());
            } else {
                changes.need_restart.push(name.clone());
            }
        }
        changes
    }
}

fn matches(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let name = std::iter::once(OsString::from("rspregistrar"));
    let mut command = usage::with_negative_numbers(Options::command());
    let matches = command.try_get_matches_from_mut(name.chain(arguments.iter().cloned()));
    matches.map_err(|error| usage::explained(error, &mut command, arguments))
}

fn values(matches: &ArgMatches) -> BTreeMap<String, Vec<OsString>> {
    let command = Options::command();
    let names = command.get_arguments().map(|argument| argument.get_id().to_string());
    let names = names.filter(|name| !NOT_IN_FILES.contains(&name.as_str()));
    let raw = |name: &str| matches.get_raw(name).into_iter().flatten().map(OsString::from).collect();
    names.map(|name| (name.replace('_', "-"), raw(&name))).collect()
}

/// The file to read, and what is in it.
fn read(given: &ArgMatches) -> Result<(Option<PathBuf>, String), String> {
    let named = given.get_one::<PathBuf>("config");
    let path = match named {
        Some(path) if path == Path::new("off") => return Ok((None, String::new())),
        Some(path) => path,
        None => Path::new(DEFAULT_FILE),
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((Some(path.to_path_buf()), text)),
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => Ok((None, String::new())),
        Err(error) => Err(format!("--config={}: {error}", path.display())),
    }
}

/// An option that the file sets.
struct Entry {
    option: String,
    arguments: Vec<String>,
    place: String,
}

fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, String> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{}:{column}", path.display(), before.matches('\n').count() + 1)
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        format!("{}: {}", place(at), error.message().trim_end())
    })?;
    let command = Options::command();
    // In the order of the file.
    let mut keys: Vec<(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)> = table.get_ref().iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let mut entries = Vec::new();
    for (key, value) in keys {
        let name: &str = key.get_ref();
        let named = |argument: &&Arg| {
            argument.get_long() == Some(name)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        };
        let wrong = |what: String| format!("{}: {name}: {what}", place(value.span().start));
        let argument = command.get_arguments().find(named);
        let Some(argument) = argument.filter(|_| !NOT_IN_FILES.contains(&name)) else {
            return Err(format!("{}: {}", place(key.span().start), unknown(name)));
        };
        let arguments = spell(argument, name, value.get_ref()).map_err(wrong)?;
        let as_given: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        matches(&as_given).map_err(|error| wrong(said(&error)))?;
        // As the parser calls it.
        let option = argument.get_id().to_string();
        entries.push(Entry { option, arguments, place: place(value.span().start) });
    }
    Ok(entries)
}

/// A value as the command line would have it.
fn spell(argument: &Arg, name: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let is_flag = matches!(argument.get_action(), ArgAction::SetTrue);
    if is_flag {
        return match value {
            DeValue::Boolean(true) => Ok(vec![format!("--{name}")]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            other => Err(format!("true or false is wanted, not {}", article(other))),
        };
    }
    let one = |value: &DeValue<'_>| {
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => match number.radix() {
                10 => number.as_str().replace('_', ""),
                16 => format!("0x{}", number.as_str().trim_start_matches("0x").replace('_', "")),
                _ => return Err("a decimal or hexadecimal number is wanted".to_string()),
            },
            DeValue::Float(number) => number.as_str().to_string(),
            other => return Err(format!("text or a number is wanted, not {}", article(other))),
        };
        Ok(format!("--{name}={text}"))
    };
    match (value, argument.get_action()) {
        (DeValue::Array(values), ArgAction::Append) => {
            values.iter().map(|value| one(value.get_ref())).collect()
        }
        (value, _) => one(value).map(|one| vec![one]),
    }
}

fn article(value: &DeValue<'_>) -> String {
    match value.type_str() {
        kind if kind.starts_with(['a', 'i']) => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// A key that is no option, and what may have been meant: what the parser would say to it.
fn unknown(name: &str) -> String {
    let mut text = format!("unknown key \"{}\"", name.escape_debug());
    let error = matches(&[OsString::from(format!("--{name}"))]).err();
    let meant = error.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg));
    if let Some(meant) = meant {
        let meant = meant.to_string();
        let meant = meant.trim_start_matches('-').split(['=', ' ']).next().unwrap_or_default();
        text += &format!("; did you mean \"{meant}\"?");
    }
    text
}

/// The first line of what the command line's parser says.
fn said(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if the file had this text.
    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rspregistrar-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(path: &Path, more: &[&str]) -> Result<Configuration, String> {
        let mut arguments = vec![OsString::from(format!("-config={}", path.display()))];
        arguments.extend(more.iter().map(OsString::from));
        Configuration::load(&arguments).map_err(|failure| match failure {
            Failure::Usage(error) => error.to_string(),
            Failure::Wrong(text) => text.replace(&path.display().to_string(), "FILE"),
        })
    }

    #[test]
    fn a_file_sets_options_and_the_command_line_wins() {
        let text = "transport = \"tcp\"\nidentifier = 0x1234\nasap = \"127.0.0.1:7\" # here\npeer = [\"10.0.0.9\", \"10.0.0.8:7\"]\n\
                    quiet = true\nsupporttakeoversuggestion = false\nmaxhrrate = -1\n";
        let path = file("sets", text);
        let server = load(&path, &[]).unwrap().options.server().unwrap();
        assert_eq!(server.machine.id.0, 0x1234);
        assert_eq!(server.asap.addresses, ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(server.machine.peers.len(), 2);
        let wins = load(&path, &["-identifier=7", "-peer=10.0.0.1", "-asap=auto"]).unwrap();
        let server = wins.options.server().unwrap();
        assert_eq!(server.machine.id.0, 7);
        assert!(server.asap.fallback);
        let peers: Vec<_> = server.machine.peers.iter().map(|peer| peer.addresses[0].to_string()).collect();
        assert_eq!(peers, ["10.0.0.1:9901"], "the command line's instead of the file's");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn mistakes_in_a_file_are_said_with_their_place() {
        for (text, said) in [
            ("\n  peers = []", "FILE:2:3: unknown key \"peers\"; did you mean \"peer\"?"),
            ("loglevle = 3", "FILE:1:1: unknown key \"loglevle\"; did you mean \"loglevel\"?"),
            ("config = \"x\"", "FILE:1:1: unknown key \"config\"; did you mean \"config\"?"),
            ("zzz = 1", "FILE:1:1: unknown key \"zzz\""),
            ("asap = [1]", "FILE:1:8: asap: text or a number is wanted, not an array"),
            ("quiet = \"yes\"", "FILE:1:9: quiet: true or false is wanted, not a string"),
            ("a = ", "FILE:1:5: "),
            ("[registrar]\nasap = 1", "FILE:1:2: unknown key \"registrar\""),
            ("identifier = \"much\"", "FILE:1:14: identifier: invalid value 'much' for '--identifier <ID>'"),
            ("quiet = true\nquiet = true", "FILE:2:1: duplicate key"),
        ] {
            let path = file("mistakes", text);
            let error = load(&path, &[]).unwrap_err();
            assert!(
                error.starts_with(said.trim_end_matches("; did you mean \"config\"?")),
                "{text}: {error}"
            );
            std::fs::remove_file(path).unwrap();
        }
        let path = file("late", "peerheartbeatcycle = 500\nminaddressscope = \"lan\"\n");
        let configuration = load(&path, &[]).unwrap();
        let wrong = configuration.explain(configuration.options.server().unwrap_err());
        assert_eq!(
            wrong,
            format!("{}:2:19: minaddressscope=lan: not loopback, sitelocal or global", path.display())
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_a_reload_changes() {
        let path = file("reload", "loglevel = \"info\"\nasap = \"127.0.0.1:7\"\n");
        let mut running = load(&path, &[]).unwrap();
        std::fs::write(&path, "loglevel = \"debug\"\nasap = \"127.0.0.1:8\"\npeer = \"10.0.0.1\"\n").unwrap();
        let newer = load(&path, &[]).unwrap();
        let changes = running.compare(&newer);
        assert_eq!(changes.taken, ["loglevel", "peer"]);
        assert_eq!(changes.need_restart, ["asap"]);
        // Said again as long as it is so.
        let again = running.compare(&newer);
        assert_eq!((again.taken.len(), again.need_restart), (0, vec!["asap".to_string()]));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn every_option_is_taken_at_a_reload_or_not() {
        let command = Options::command();
        for name in TAKEN_AT_RELOAD {
            assert!(command.get_arguments().any(|argument| argument.get_long() == Some(name)), "{name}");
        }
    }
}
