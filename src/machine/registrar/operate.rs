//! What an operator changes while the service runs.

use super::links::StaticPeer;
use super::{Config, Registrar};
use crate::handlespace::Bounds;
use crate::machine::Time;

impl Registrar {
    /// Takes other timers, bounds and static peers. Who we are, where we are reached and whether we announce
    /// that stays as it is. Links stay as well: a peer that is no longer configured is only not dialled again,
    /// and beyond a bound that has become lower nothing is removed.
    pub fn reconfigure(&mut self, now: Time, config: Config) {
        self.now = now;
        let running = &mut self.config;
        *running = Config {
            id: running.id,
            asap_transports: std::mem::take(&mut running.asap_transports),
            enrp_transports: std::mem::take(&mut running.enrp_transports),
            announce_asap: running.announce_asap,
            announce_enrp: running.announce_enrp,
            ..config
        };
        let (elements, step) = (self.config.max_elements, self.config.distance_step);
        self.config.distance_step = step.max(std::time::Duration::from_millis(1));
        self.space.set_bounds(Bounds { elements, ..Bounds::default() });
        let targets = self.config.peers.clone();
        for entry in &mut self.statics {
            entry.dropped = !targets.contains(&entry.target);
        }
        for target in targets {
            let index = match self.statics.iter().position(|entry| entry.target == target) {
                Some(index) => index,
                None => {
                    self.statics.push(StaticPeer::new(target));
                    self.statics.len() - 1
                }
            };
            self.dial_static(index);
        }
        self.finish();
    }
}
