//! The headers in `include/rserpool/` are what cbindgen makes of `src/ffi`; `RSP_BLESS=1` rewrites them.
//! They compile as C99 and C++17, found as `<rserpool/rserpool.h>` and as `"rserpool.h"`.
#![allow(clippy::disallowed_methods)]

#[path = "common/skip.rs"]
mod skip;

use skip::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LICENCE: &str = "\
/* Reliable Server Pooling (RFC 5351-5356), classic RSerPool socket API. SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by cbindgen from src/ffi; `RSP_BLESS=1 cargo test --test header` writes it anew. */";

/// One header: what it is made from, and what cbindgen cannot express.
struct Header {
    name: &'static str,
    /// Files of `src/ffi`, in the order of the header.
    sources: &'static [&'static str],
    /// Includes of the system.
    system: &'static [&'static str],
    /// Includes of our own, found beside this header.
    own: &'static [&'static str],
    /// Text after the includes.
    text: &'static str,
    /// Types of other headers.
    tagged: &'static [&'static str],
}

const HEADERS: &[Header] = &[
    Header {
        name: "rserpool-policytypes.h",
        sources: &["policytypes"],
        system: &["stdint.h"],
        own: &[],
        text: "
/* Whether a policy chooses by load, so that its elements should keep theirs up to date. */
#define PPT_IS_ADAPTIVE(p) \\
    ((p) == PPT_LEASTUSED || \\
     (p) == PPT_LEASTUSED_DEGRADATION || \\
     (p) == PPT_PRIORITY_LEASTUSED || \\
     (p) == PPT_RANDOMIZED_LEASTUSED || \\
     (p) == PPT_RANDOMIZED_PRIORITY_LEASTUSED || \\
     (p) == PPT_RANDOMIZED_LEASTUSED_DEGRADATION || \\
     (p) == PPT_PRIORITY_LEASTUSED_DEGRADATION || \\
     (p) == PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION || \\
     (p) == PPT_LEASTUSED_DPF || \\
     (p) == PPT_LEASTUSED_DEGRADATION_DPF || \\
     (p) == PPT_PRIORITY_LEASTUSED_DPF || \\
     (p) == PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF)
",
        tagged: &[],
    },
    Header {
        name: "rserpool-csp.h",
        sources: &["csp"],
        system: &["stdint.h"],
        own: &[],
        text: "
/* A component's identity: what it is, and which one of those. */
#define CID_GROUP(id) (((uint64_t)(id) >> 56) & 0xffff)
#define CID_OBJECT(id) ((uint64_t)(id) & (((uint64_t)1 << 56) - 1))
#define CID_COMPOUND(group, object) (((uint64_t)((group) & 0xffff) << 56) | CID_OBJECT(object))
",
        tagged: &[],
    },
    Header {
        name: "tagitem.h",
        sources: &["legacy/tagitem"],
        system: &["stddef.h", "stdio.h"],
        own: &[],
        text: "",
        tagged: &[],
    },
    Header {
        name: "rserpool.h",
        sources: &["constants", "abi", "library", "basic", "policy", "socket", "poll", "session", "message", "sendto", "explain", "counters"],
        system: &[
            "stddef.h",
            "stdint.h",
            "stdio.h",
            "netdb.h",
            "sys/types.h",
            "sys/select.h",
            "sys/socket.h",
            "sys/time.h",
            "poll.h",
        ],
        own: &["rserpool-policytypes.h", "rserpool-csp.h"],
        text: "
/* Of the library that these headers belong to; rsp_version tells that of the library that runs. The classic API's
 * RSPLIB_VERSION and RSPLIB_REVISION stay what rsplib's programs expect. */
@VERSION@

/* Multicast groups in which registrars announce themselves. */
#define ASAP_ANNOUNCE_MULTICAST_ADDRESS \"239.0.0.50:3863\"
#define ENRP_ANNOUNCE_MULTICAST_ADDRESS \"239.0.0.51:9901\"

/* How many elements rsp_getaddrinfo shall return. MAX is as many as possible, which is 128. */
#define RSPGETADDRS_MIN ((size_t)1)
#define RSPGETADDRS_DEFAULT ((size_t)0)
#define RSPGETADDRS_MAX ((size_t)0xffffffff)
/* Not in rsplib: all of the pool's elements, as many as one answer of 64 KiB holds (some 600 to 1000). */
#define RSPGETADDRS_ALL ((size_t)0x7fffffff)
",
        tagged: &[],
    },
    Header {
        name: "rserpool-internals.h",
        sources: &["legacy/tags", "internals"],
        system: &[],
        own: &["rserpool.h"],
        text: "\nstruct TagItem; /* tagitem.h */\n",
        tagged: &["rsp_addrinfo", "rsp_loadinfo", "TagItem"],
    },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    root().join("include/rserpool")
}

fn generate(header: &Header) -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    config.header = Some(LICENCE.to_owned());
    config.include_guard = Some(header.name.to_uppercase().replace(['-', '.'], "_"));
    config.sys_includes = header.system.iter().map(|name| (*name).to_owned()).collect();
    config.includes = header.own.iter().map(|name| (*name).to_owned()).collect();
    config.after_includes = (!header.text.is_empty()).then(|| header.text.replace("@VERSION@", &version()));
    for name in header.tagged {
        config.export.rename.insert((*name).to_owned(), format!("struct {name}"));
    }
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in header.sources {
        builder = builder.with_src(root().join(format!("src/ffi/{source}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().expect("bindings").write(&mut text);
    in_c_spelling(&String::from_utf8(text).expect("text"))
}

/// What a C programmer would have written: comments on one line where they fit, constants together,
/// code points in hexadecimal (and so of an unsigned type), negative numbers in parentheses.
fn in_c_spelling(text: &str) -> String {
    let mut lines = text.lines().peekable();
    let mut out: Vec<String> = Vec::new();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim() == "/*" {
            let comment: Vec<&str> =
                lines.by_ref().map(str::trim).take_while(|comment| *comment != "*/").collect();
            let body = comment.join(&format!("\n{indent} * ")).replace(" * \n", " *\n");
            out.push(format!("{indent}/* {body} */"));
        } else if let Some((name, value)) = constant(line) {
            let value = match value {
                _ if name.starts_with("PPT_") || name.starts_with("PPV_MAX_") => format!("0x{value:08x}"),
                _ if name.starts_with("RSPERR_") => format!("0x{value:04x}"),
                ..0 => format!("({value})"),
                _ => value.to_string(),
            };
            out.push(format!("#define {name} {value}"));
            // The empty line goes, unless something new begins.
            if lines.peek().is_some_and(|next| next.is_empty()) {
                lines.next();
                let more = lines.peek().is_some_and(|next| constant(next).is_some());
                if !more {
                    out.push(String::new());
                }
            }
        } else if line.starts_with("#endif") {
            // C89 has no comments of that kind.
            out.push("#endif".to_owned());
        } else if !(line.is_empty() && out.last().is_some_and(String::is_empty)) {
            out.push(line.to_owned());
        }
    }
    out.join("\n") + "\n"
}

/// `RSERPOOL_VERSION` and its parts, as `Cargo.toml` has them.
fn version() -> String {
    let parts =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
    let [major, minor, patch] = parts.map(|part| part.parse::<u32>().expect("a number"));
    let number = major << 16 | minor << 8 | patch;
    format!(
        "#define RSERPOOL_VERSION \"{}\"\n#define RSERPOOL_VERSION_MAJOR {major}\n#define RSERPOOL_VERSION_MINOR {minor}\n\
         #define RSERPOOL_VERSION_PATCH {patch}\n/* For #if: {major}.{minor}.{patch} is */\n\
         #define RSERPOOL_VERSION_NUMBER 0x{number:06x}",
        env!("CARGO_PKG_VERSION")
    )
}

fn constant(line: &str) -> Option<(&str, i64)> {
    let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
    Some((name, value.parse().ok()?))
}

/// Compiles a program that uses the headers.
fn compiles(compiler: &str, options: &[&str], source: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = options.join("").replace(['/', '='], "_");
    let path = folder.join(format!("{compiler}{name}.{}", if compiler == "c++" { "cc" } else { "c" }));
    fs::write(&path, source).unwrap();
    let output = match Command::new(compiler)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"])
        .args(options)
        .arg(&path)
        .current_dir(root())
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            return skipped(&format!("headers with {compiler}"), &error.to_string());
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn headers_compile_as_c_and_cpp_both_ways() {
    for (option, prefix) in [("-Iinclude", "rserpool/"), ("-Iinclude/rserpool", "")] {
        // Each alone, so that none needs another one before it, and all together.
        let alone = HEADERS.iter().map(|header| vec![header.name]);
        for names in alone.chain([HEADERS.iter().map(|header| header.name).collect()]) {
            let includes = names.iter().map(|name| {
                if prefix.is_empty() {
                    format!("#include \"{name}\"\n")
                } else {
                    format!("#include <{prefix}{name}>\n")
                }
            });
            let source = includes.collect::<String>() + "int main(void) { return 0; }\n";
            compiles("cc", &["-std=c89", "-pedantic-errors", option], &source);
            compiles("cc", &["-std=c99", option], &source);
            compiles("c++", &["-std=c++17", option], &source);
        }
    }
}

#[test]
fn headers_are_what_the_sources_say() {
    let bless = std::env::var_os("RSP_BLESS").is_some();
    for header in HEADERS {
        let path = folder().join(header.name);
        let generated = generate(header);
        if bless {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &generated).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == generated,
            "{} is not what src/ffi says; RSP_BLESS=1 cargo test --test header",
            path.display()
        );
    }
}

/// musl complains of headers that it has under another name.
#[test]
fn headers_compile_with_musl() {
    let source: String =
        HEADERS.iter().map(|header| format!("#include <rserpool/{}>\n", header.name)).collect();
    compiles("musl-gcc", &["-std=c99", "-Iinclude"], &source);
}
