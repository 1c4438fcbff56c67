//! What both programs have in common when a command line makes no sense.

use clap::Command;
use clap::error::{Error, ErrorKind};
use std::ffi::OsString;

/// What looks like a negative number is a value, so that the option is named for which it is none.
pub fn with_negative_numbers(command: Command) -> Command {
    command
        .mut_args(|argument| {
            let takes = argument.get_action().takes_values();
            argument.allow_negative_numbers(takes)
        })
        .mut_subcommands(with_negative_numbers)
}

/// The error with what is not text in it, which clap leaves out.
pub fn explained(error: Error, command: &mut Command, arguments: &[OsString]) -> Error {
    if error.kind() != ErrorKind::InvalidUtf8 {
        return error;
    }
    let mut wrong = Vec::new();
    for (at, argument) in arguments.iter().enumerate().filter(|(_, argument)| argument.to_str().is_none()) {
        // An option whose value it is stands before it, if not in it.
        let option = at.checked_sub(1).and_then(|before| arguments[before].to_str());
        let option = option.filter(|before| before.starts_with('-') && !before.contains('='));
        wrong.push(format!("{}{argument:?}", option.map(|option| format!("{option} ")).unwrap_or_default()));
    }
    command.error(ErrorKind::InvalidUtf8, format!("not UTF-8: {}", wrong.join(", ")))
}
