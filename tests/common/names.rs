//! What a source file of this crate names of its other files: a reader of `use` lines and paths, just good enough for
//! code that `cargo fmt` has been over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of one crate: by their path within it (`["socket", "channel", "conn"]`; `[]` is the root).
pub struct Modules {
    texts: BTreeMap<Vec<String>, (PathBuf, String)>,
}

/// One file names something of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: Vec<String>,
    pub to: Vec<String>,
}

impl Modules {
    /// All below `folder`, whose `root` is the crate's (`lib.rs`, `main.rs`). Files of tests are left out.
    pub fn read(folder: &Path, root: &str) -> Modules {
        let mut texts = BTreeMap::new();
        let mut folders = vec![(folder.to_path_buf(), Vec::new())];
        while let Some((at, module)) = folders.pop() {
            for entry in fs::read_dir(&at).expect("readable folder") {
                let path = entry.expect("readable folder").path();
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let mut module: Vec<String> = module.clone();
                if name == "tests" || name.ends_with("_tests") || (at == folder && name == "bin") {
                    continue;
                }
                if path.is_dir() {
                    module.push(name);
                    folders.push((path, module));
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let is_root = module.is_empty() && path.file_name().is_some_and(|file| file == root);
                    if name != "mod" && !is_root {
                        module.push(name);
                    }
                    let text = fs::read_to_string(&path).expect("readable file");
                    texts.insert(module, (path, code_of(&text)));
                }
            }
        }
        Modules { texts }
    }

    /// Adds those that the root has from outside its folder, by `#[path = "../.."]`.
    pub fn take_in(mut self, folder: &Path, root: &str) -> Modules {
        let text = fs::read_to_string(folder.join(root)).expect("readable file");
        for (at, _) in text.match_indices("#[path = \"../") {
            let mut lines = text[at..].lines();
            let file = lines.next().and_then(|line| line.split('"').nth(1)).expect("a path");
            let line = lines.find(|line| !line.starts_with('#')).expect("what has the path");
            let name = line.trim_start_matches("pub ").strip_prefix("mod ").expect("a module");
            let path = folder.join(file).canonicalize().expect("a file");
            let code = code_of(&fs::read_to_string(&path).expect("readable file"));
            self.texts.insert(vec![name.trim_end_matches(';').to_owned()], (path, code));
        }
        self
    }

    pub fn path(&self, module: &[String]) -> &Path {
        self.texts.get(module).map_or(Path::new("?"), |(path, _)| path)
    }

    /// The types that a file of the crate defines at its top, or by a macro, and the files that define one of that name.
    pub fn types(&self) -> BTreeMap<String, Vec<&Path>> {
        const KINDS: [&str; 5] = ["struct", "enum", "union", "trait", "type"];
        let mut types = BTreeMap::<_, Vec<&Path>>::new();
        for (path, text) in self.texts.values() {
            let mut in_macro = false;
            for line in text.lines() {
                let at_top = !line.starts_with([' ', '}']);
                if at_top && !line.is_empty() {
                    in_macro = line.ends_with("! {") || line.starts_with("macro_rules!");
                }
                if !at_top && !in_macro {
                    continue;
                }
                // Within an `impl` there, `type` says what another type is called.
                let kinds = if at_top { &KINDS[..] } else { &KINDS[..4] };
                let mut words = line
                    .split([' ', '<', '(', '{', ';', ':', '='])
                    .skip_while(|word| !kinds.contains(word))
                    .skip(1);
                if let Some(name) = words.next().filter(|name| name.starts_with(char::is_uppercase)) {
                    types.entry(name.to_owned()).or_default().push(path);
                }
            }
        }
        types
    }

    /// Everything that any file names of any other one.
    pub fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (module, (_, text)) in &self.texts {
            for path in paths(text) {
                if let Some(to) = self.resolve(module, &path, 0).filter(|to| to != module) {
                    arrows.insert(Arrow { from: module.clone(), to });
                }
            }
        }
        arrows
    }

    /// The file in which what `path` names stands, seen from `module`; `None`: in none of this crate.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let mut at = module.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {}
            // Only of this crate if it is a module below.
            first => {
                at.push(first.to_string());
                if !self.texts.contains_key(&at) {
                    return None;
                }
                rest = &rest[1..];
            }
        }
        while rest.first().is_some_and(|segment| segment == "super") {
            at.pop()?;
            rest = &rest[1..];
        }
        while let Some((segment, further)) = rest.split_first() {
            at.push(segment.clone());
            if self.texts.contains_key(&at) {
                rest = further;
                continue;
            }
            at.pop();
            // Perhaps the module has it from elsewhere.
            let exported = (depth < 8).then(|| self.exported(&at, segment, depth)).flatten();
            return exported.or(self.texts.contains_key(&at).then_some(at));
        }
        Some(at)
    }

    /// Where a module has a name from that it does not define itself.
    fn exported(&self, module: &[String], name: &str, depth: usize) -> Option<Vec<String>> {
        let (_, text) = self.texts.get(module)?;
        let found = uses(text).into_iter().find(|path| path.last().is_some_and(|last| last == name))?;
        self.resolve(module, &found, depth + 1)
    }
}

/// A file's text without comments and without its tests, which stand at its end.
fn code_of(text: &str) -> String {
    // A module of tests ends a file, unless it is one of its own.
    let inside = |at: &usize| text[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{'));
    let end = text.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at).find(inside);
    let text = &text[..end.unwrap_or(text.len())];
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths of all `use` lines, groups taken apart.
fn uses(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let before = text[..at].trim_end_matches(' ');
        if before.is_empty() || before.ends_with(['\n', ')']) || before.ends_with("pub") {
            expand(&text[at + 4..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// The paths of all `use` lines, and those that stand in code and begin with `crate` or `super`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = uses(text);
    for begin in ["crate::", "super::"] {
        for (at, _) in text.match_indices(begin) {
            let inside =
                text[..at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before));
            if !inside {
                expand(&text[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Takes a path apart that begins `text`, with all its groups; how much of the text it was.
fn expand(text: &str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = before.len();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].trim_start().starts_with('}') && !text[at..].trim_start().is_empty() {
                at += expand(&text[at..], before, found);
                at += text[at..].find([',', '}']).unwrap_or(text[at..].len());
                at += usize::from(text[at..].starts_with(','));
            }
            at += text[at..].find('}').map_or(0, |end| end + 1);
            break;
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            // `*`: the module itself.
            if before.len() > depth || rest.starts_with('*') {
                found.push(before.clone());
            }
            break;
        }
        at += name.len();
        if name != "self" || before.is_empty() {
            before.push(name);
        }
        if !text[at..].starts_with("::") {
            found.push(before.clone());
            break;
        }
        at += 2;
    }
    before.truncate(depth);
    at
}

/// A circle among what stands beside each other in one folder: files, and folders taken whole. A folder's `mod.rs` is
/// the folder itself and takes no part.
pub fn circles(arrows: &BTreeSet<Arrow>) -> Vec<Vec<String>> {
    let mut folders: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for Arrow { from, to } in arrows {
        let common = from.iter().zip(to).take_while(|(one, two)| one == two).count();
        if let (Some(one), Some(two)) = (from.get(common), to.get(common)) {
            let graph = folders.entry(from[..common].to_vec()).or_default();
            graph.entry(one.clone()).or_default().insert(two.clone());
        }
    }
    let mut circles = Vec::new();
    for (folder, graph) in folders {
        let reach = |from: &String| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&String> = graph.get(from).into_iter().flatten().collect();
            while let Some(at) = next.pop() {
                if seen.insert(at) {
                    next.extend(graph.get(at).into_iter().flatten());
                }
            }
            seen
        };
        let mut known: BTreeSet<&String> = BTreeSet::new();
        for name in graph.keys() {
            if known.contains(name) {
                continue;
            }
            let members: Vec<&String> =
                reach(name).into_iter().filter(|other| reach(other).contains(name)).collect();
            if !members.is_empty() {
                known.extend(&members);
                let path = |member: &&String| [&folder[..], &[(*member).clone()]].concat().join("/");
                circles.push(members.iter().map(path).collect());
            }
        }
    }
    circles
}
