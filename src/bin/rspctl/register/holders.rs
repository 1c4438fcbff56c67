//! The processes that have a server's listening sockets, as /proc tells; those of others tell it to nobody but root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// Processes and their parents.
pub type Holders = BTreeMap<i32, i32>;

/// Who has one of these sockets.
pub fn find(inodes: &[u32]) -> Holders {
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| has(*id, &links)).filter_map(|id| Some((id, parent(id)?))).collect()
}

fn has(id: i32, links: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|to| links.iter().any(|link| link.as_bytes() == to.as_os_str().as_bytes()))
}

fn parent(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may have anything in it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a server ends when these processes do: each of its processes is one of them, or some other's child that
/// has the sockets as well, as workers are.
pub fn end_with(holders: &Holders, told: &[i32]) -> bool {
    holders.iter().all(|(id, parent)| told.contains(id) || holders.contains_key(parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn workers_come_and_go() {
        let prefork = Holders::from([(10, 1), (11, 10), (12, 10)]);
        assert!(!end_with(&prefork, &[11]) && !end_with(&prefork, &[11, 12]) && end_with(&prefork, &[10]));
        let several = Holders::from([(11, 10), (12, 10)]);
        assert!(!end_with(&several, &[11]) && end_with(&several, &[11, 12]));
        assert!(end_with(&Holders::new(), &[11]), "nothing may be known");
    }

    #[test]
    fn this_process_has_its_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode =
            link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap();
        let holders = find(&[inode]);
        let here = std::process::id().cast_signed();
        assert_eq!(holders.get(&here), Some(&std::os::unix::process::parent_id().cast_signed()));
    }
}
