//! What a run did: faults that were injected, checks that were made, other things worth counting.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub steps: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub checks: BTreeMap<&'static str, u64>,
    pub events: BTreeMap<&'static str, u64>,
    pub worst: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub fn check(&mut self, name: &'static str) {
        *self.checks.entry(name).or_default() += 1;
    }

    pub fn event(&mut self, name: &'static str) {
        *self.events.entry(name).or_default() += 1;
    }

    /// Keeps the largest value.
    pub fn worst(&mut self, name: &'static str, value: u64) {
        let kept = self.worst.entry(name).or_default();
        *kept = value.max(*kept);
    }

    pub fn add(&mut self, run: &Tally) {
        self.steps += run.steps;
        let sums = [
            (&mut self.faults, &run.faults),
            (&mut self.checks, &run.checks),
            (&mut self.events, &run.events),
        ];
        for (sum, part) in sums {
            for (&name, &count) in part {
                *sum.entry(name).or_default() += count;
            }
        }
        for (&name, &value) in &run.worst {
            self.worst(name, value);
        }
    }

    pub fn total_faults(&self) -> u64 {
        self.faults.values().sum()
    }

    pub fn print(&self, runs: u64) {
        println!("{runs} seeds, {} steps", self.steps);
        let tables = [
            ("faults injected", &self.faults),
            ("checks made", &self.checks),
            ("events", &self.events),
            ("worst", &self.worst),
        ];
        for (title, table) in tables {
            println!("{title}:");
            for (name, count) in table {
                println!("{count:>12}  {name}");
            }
        }
    }
}
