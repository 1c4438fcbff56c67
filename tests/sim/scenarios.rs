//! Single stories with their times, told by the same machines: takeover in all its forms, and registrars
//! with rsplib's timers among ours.

use super::acts::Act;
use super::checks::settles;
use super::network::Happening;
use super::world::{Machine, Plan, World};
use super::{number, pool};
use rserpool::wire::PeId;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A fair world in which everything runs, and each process has one element.
fn fair(seed: u64, registrars: usize, processes: usize, slow: &[usize]) -> World {
    let plan = Plan { sctp: !slow.is_empty(), slow: slow.to_vec(), ..Plan::fair(registrars, processes) };
    let mut world = World::new(seed, plan);
    for host in 0..registrars + processes {
        world.act(Act::Start { host, same_id: false });
    }
    world.run_for(MS(8000));
    for host in registrars..registrars + processes {
        world.act(Act::Register { host, handle: pool(0), id: PeId(host as u32) });
    }
    settles(&mut world, MS(10_000));
    world
}

/// How many elements each running registrar calls its own.
fn owned(world: &World) -> Vec<(usize, usize)> {
    let own = |(host, registrar): (usize, &rserpool::machine::registrar::Registrar)| {
        (host, registrar.handlespace().owned_count(registrar.id()))
    };
    world.registrars().map(own).collect()
}

/// The registrar with the most elements.
fn busiest(world: &World) -> usize {
    owned(world).into_iter().max_by_key(|&(_, count)| count).expect("a registrar").0
}

/// Until no running registrar but `dead` knows of any element of it.
fn until_taken_over(world: &mut World, dead: usize, patience: Duration) -> Duration {
    let (begin, id) = (world.now, world.hosts[dead].id);
    let left = |world: &World| {
        let others = world.registrars().filter(|&(host, _)| host != dead && !world.hosts[host].paused);
        others.map(|(_, registrar)| registrar.handlespace().owned_count(id)).sum::<usize>()
    };
    while left(world) > 0 {
        assert!(world.now - begin < patience, "elements of h{dead} after {patience:?}");
        world.run_for(MS(1));
    }
    world.now - begin
}

#[test]
fn a_killed_registrar_is_taken_over_also_by_the_only_one_left() {
    for registrars in 2..=6 {
        let mut world = fair(1, registrars, 8, &[]);
        let victim = busiest(&world);
        world.act(Act::Kill(victim));
        let time = until_taken_over(&mut world, victim, MS(3000));
        println!("{registrars} registrars, one killed: taken over after {time:?}");
        settles(&mut world, MS(5000));
    }
}

#[test]
fn a_hung_registrar_is_taken_over_in_less_than_three_seconds() {
    for registrars in 2..=6 {
        let mut world = fair(2, registrars, 8, &[]);
        let victim = busiest(&world);
        world.act(Act::Pause(victim));
        let time = until_taken_over(&mut world, victim, MS(3000));
        println!("{registrars} registrars, one hung: taken over after {time:?}");
        world.run_for(MS(5000));
        world.act(Act::Resume(victim));
        settles(&mut world, MS(10_000));
    }
}

#[test]
fn the_initiator_dies_halfway() {
    for seed in 0..20 {
        let mut world = fair(seed, 4, 8, &[]);
        let victim = busiest(&world);
        world.act(Act::Pause(victim));
        // Whoever is about to take over is killed in the act.
        while !world.tally.events.contains_key("takeover started") {
            world.run_for(Duration::from_micros(100));
        }
        let lowest = world.registrars().filter(|&(host, _)| host != victim).min_by_key(|(_, r)| r.id());
        let initiator = lowest.expect("others").0;
        world.act(Act::Kill(initiator));
        until_taken_over(&mut world, victim, MS(3500));
        until_taken_over(&mut world, initiator, MS(3500));
        world.act(Act::Kill(victim));
        world.act(Act::Start { host: victim, same_id: false });
        world.act(Act::Start { host: initiator, same_id: false });
        settles(&mut world, MS(10_000));
    }
}

#[test]
fn two_initiators_at_once_end_with_one_home_for_each_element() {
    let mut both = 0;
    for seed in 0..40 {
        let mut world = fair(seed, 3, 6, &[]);
        let victim = busiest(&world);
        // Both others last heard of it in the same instant.
        world.act(Act::Pause(victim));
        until_taken_over(&mut world, victim, MS(3000));
        world.act(Act::Kill(victim));
        both += u32::from(world.tally.events.get("takeover started").is_some_and(|&count| count >= 2));
        settles(&mut world, MS(5000));
        let sum: usize = owned(&world).iter().map(|&(_, count)| count).sum();
        assert_eq!(sum, 6, "each element has exactly one home");
    }
    println!("two initiators at once in {both} of 40 worlds");
    assert!(both > 10, "the story was hardly told");
}

#[test]
fn whoever_they_are_two_initiators_end_with_one_home_for_each_element() {
    let worlds = number("RSP_ARBITRATIONS").unwrap_or(12);
    // A scope of the RFC's, one of rsplib's, and mixed ones.
    for slow in [&[][..], &[0, 1, 2, 3], &[0], &[0, 1], &[1, 2, 3], &[2, 3]] {
        let (mut both, mut worst) = (0, MS(0));
        for seed in 0..worlds {
            let mut world = fair(seed, 4, 6, slow);
            let victim = busiest(&world);
            world.act(Act::Pause(victim));
            let patience = if slow.is_empty() { MS(3000) } else { MS(30_000) };
            worst = worst.max(until_taken_over(&mut world, victim, patience));
            world.act(Act::Kill(victim));
            both += u32::from(world.tally.events.get("takeover started").is_some_and(|&count| count >= 2));
            settles(&mut world, MS(40_000));
            let sum: usize = owned(&world).iter().map(|&(_, count)| count).sum();
            assert_eq!(sum, 6, "each element has exactly one home: {slow:?}, seed {seed}");
        }
        println!(
            "{slow:?} are rsplib's: two initiators in {both} of {worlds} worlds, taken over after {worst:?} at most"
        );
    }
}

#[test]
fn a_takeover_is_called_off_when_the_target_speaks_up() {
    for seed in 0..20 {
        let mut world = fair(seed, 3, 6, &[]);
        let before = owned(&world);
        let victim = busiest(&world);
        // Silent for long enough to be asked, not for long enough to be dead.
        world.act(Act::Pause(victim));
        world.run_for(MS(1900));
        world.act(Act::Resume(victim));
        world.run_for(MS(4000));
        assert_eq!(world.tally.events.get("takeover done"), None);
        assert_eq!(owned(&world), before, "nobody lost anything");
        settles(&mut world, MS(5000));
    }
}

#[test]
fn a_registrar_that_speaks_up_during_its_takeover_keeps_its_elements() {
    let mut started = 0;
    for seed in 0..60 {
        let mut world = fair(seed, 4, 8, &[]);
        // Slow enough that acknowledgements are on their way when the target wakes up.
        world.network.weather.delay = (MS(20), MS(60));
        let victim = busiest(&world);
        world.act(Act::Pause(victim));
        while !world.tally.events.contains_key("takeover started") {
            world.run_for(MS(1));
        }
        world.act(Act::Resume(victim));
        started += 1;
        settles(&mut world, MS(10_000));
        let sum: usize = owned(&world).iter().map(|&(_, count)| count).sum();
        assert_eq!(sum, 8, "each element has exactly one home");
    }
    assert_eq!(started, 60);
}

#[test]
fn after_a_partition_each_element_has_exactly_one_home() {
    for seed in 0..30 {
        for one_way in [false, true] {
            let mut world = fair(seed, 4, 8, &[]);
            // Half of the registrars and half of the processes on each side.
            let hosts = vec![0, 1, 4, 5, 6, 7];
            world.act(Act::Partition { hosts, one_way });
            world.run_for(MS(14_000));
            world.act(Act::Heal);
            settles(&mut world, MS(20_000));
            let sum: usize = owned(&world).iter().map(|&(_, count)| count).sum();
            assert_eq!(sum, 8);
        }
    }
}

#[test]
fn requests_in_flight_move_within_the_response_timer() {
    for seed in 0..20 {
        for act in [Act::Kill as fn(usize) -> Act, Act::Pause] {
            let mut world = fair(seed, 3, 6, &[]);
            let victim = busiest(&world);
            world.act(act(victim));
            for host in 3..9 {
                world.act(Act::Resolve { host, handle: pool(0) });
            }
            let refused = world.tally.events.get("request refused with an error").copied();
            world.run_for(MS(3000));
            assert!(world.requests.is_empty(), "{:?} are open", world.requests);
            assert_eq!(world.tally.events.get("request refused with an error").copied(), refused);
        }
    }
}

#[test]
fn registrars_with_rsplibs_timers_are_not_taken_for_dead() {
    for (registrars, slow) in [(3, vec![0]), (3, vec![0, 1]), (4, vec![1, 3]), (2, vec![0])] {
        for skew in [0, 10_000] {
            let mut world = fair(7, registrars, 6, &slow);
            world.plan.skew = skew;
            world.run_for(Duration::from_secs(120));
            for quiet in ["peer declared dead", "takeover started"] {
                assert_eq!(world.tally.events.get(quiet), None, "{quiet}: {slow:?} of {registrars}");
            }
            let states = world.registrars().flat_map(|(_, registrar)| registrar.peers());
            assert!(states.into_iter().all(|peer| peer.state == "alive"));
            let resynchronisations: u64 =
                world.registrars().map(|(_, registrar)| registrar.stats().resynchronisations).sum();
            assert!(resynchronisations <= 2 * registrars as u64, "{resynchronisations} resynchronisations");
        }
    }
}

#[test]
fn a_dead_element_is_gone_at_once_and_a_hung_one_in_less_than_two_seconds() {
    for (act, patience) in [(Act::Kill as fn(usize) -> Act, MS(50)), (Act::Pause, MS(2000))] {
        for seed in 0..10 {
            let mut world = fair(seed, 3, 6, &[]);
            world.act(act(5));
            world.run_for(patience);
            for (host, registrar) in world.registrars() {
                let known = registrar.handlespace().find(&pool(0), PeId(5));
                assert!(known.is_none(), "h{host} knows the element after {patience:?}");
            }
        }
    }
}

#[test]
fn a_mentor_that_dies_or_hangs_in_the_middle_is_replaced() {
    for seed in 0..40 {
        for act in [Act::Kill as fn(usize) -> Act, Act::Pause] {
            let mut world = fair(seed, 3, 6, &[]);
            world.act(Act::Kill(0));
            world.run_for(MS(4000));
            world.act(Act::Start { host: 0, same_id: false });
            let when = world.now + Duration::from_micros(world.network.rng.u64(0..20_000));
            let mentor = world.network.rng.usize(1..3);
            world.network.schedule(when, Happening::Act(act(mentor)));
            world.run_for(MS(4500));
            assert!(world.registrar(0).is_serving());
            let elements = world.registrar(0).handlespace().len();
            assert_eq!(elements, 6, "it serves the whole handlespace");
            if matches!(world.hosts[mentor].machine, Machine::Nothing) {
                world.act(Act::Start { host: mentor, same_id: false });
            }
            world.act(Act::Resume(mentor));
            settles(&mut world, MS(10_000));
        }
    }
}

#[test]
fn without_faults_nobody_ever_resynchronises() {
    for seed in 0..20 {
        let mut world = fair(seed, 3, 6, &[]);
        let before = super::checks::unrest(&world);
        for round in 0..40 {
            let host = 3 + round % 6;
            let act = match round % 5 {
                0 => Act::Deregister(host),
                1 => Act::Register { host, handle: pool(round % 3), id: PeId(1000 + round as u32) },
                // Its elements go, and nobody but its registrar sees it.
                2 => Act::Kill(host),
                3 => Act::Start { host: 3 + (round - 1) % 6, same_id: false },
                _ => Act::Update { host, load: round as u32 },
            };
            world.act(act);
            world.run_for(MS(300));
        }
        settles(&mut world, MS(5000));
        assert_eq!(super::checks::unrest(&world), before, "every change was told");
    }
}

/// What a registrar says is stuck for a while, what it hears is not: only the keep-alives lack answers.
#[test]
fn elements_stay_while_nothing_comes_through_to_their_process() {
    for seed in 0..20 {
        let mut world = fair(seed, 3, 3, &[]);
        for number in 0..3 {
            world.act(Act::Register { host: 3, handle: pool(1), id: PeId(100 + number) });
        }
        settles(&mut world, MS(5000));
        let owns = |registrar: &rserpool::machine::registrar::Registrar| {
            let space = registrar.handlespace();
            let element = space.find(&pool(0), PeId(3)).and_then(|key| space.get(key));
            element.is_some_and(|element| element.home() == registrar.id())
        };
        let home = world.registrars().find(|(_, registrar)| owns(registrar)).expect("a home").0;
        world.act(Act::Cut { hosts: [home, 3], one_way: true });
        for _ in 0..17 {
            world.act(Act::Resolve { host: 3, handle: pool(0) });
            world.run_for(MS(100));
            assert_eq!(world.registrar(home).handlespace().len(), 6, "seed {seed}");
        }
        world.act(Act::Heal);
        world.run_for(MS(500));
        for (host, registrar) in world.registrars() {
            assert_eq!(registrar.handlespace().len(), 6, "h{host}, seed {seed}");
        }
        settles(&mut world, MS(10_000));
    }
}

/// How many of the elements that should be in the pool each registrar lacks, the worst.
fn missing(world: &World) -> usize {
    let expected = world.expected(&pool(0));
    let lacks = |(_, registrar): (usize, &rserpool::machine::registrar::Registrar)| {
        let space = registrar.handlespace();
        expected.iter().filter(|&&id| space.find(&pool(0), id).is_none()).count()
    };
    world.registrars().map(lacks).max().unwrap_or(0)
}

#[test]
fn after_a_partition_every_element_is_back_within_three_seconds() {
    let mut worst = Duration::ZERO;
    for length in [1000, 2000, 2500, 3000, 3500, 4000, 5000, 7000, 10_000, 15_000, 25_000, 40_000, 60_000] {
        for registrars in [1, 3] {
            for seed in 0..2 {
                let mut world = fair(seed, registrars, 6, &[]);
                let hosts = (registrars..registrars + 3).collect();
                world.act(Act::Partition { hosts, one_way: seed == 1 });
                world.run_for(MS(length + 97 * seed));
                world.act(Act::Heal);
                let healed = world.now;
                let mut back = Duration::ZERO;
                while world.now - healed < MS(8000) {
                    world.run_for(MS(20));
                    if missing(&world) > 0 {
                        back = world.now - healed;
                        assert!(
                            back < MS(3000),
                            "{length} ms, {registrars} registrars, seed {seed}: {back:?}"
                        );
                    }
                }
                worst = worst.max(back);
            }
        }
    }
    println!("after partitions of 1 to 60 s all elements were back after {worst:?} at the latest");
}

/// In how many looks, one each 100 ms, how many elements were missing.
fn absence(world: &mut World, looks: u32) -> u32 {
    let mut absent = 0;
    for _ in 0..looks {
        world.run_for(MS(100));
        absent += missing(world) as u32;
    }
    absent
}

/// One of 20 elements moves now and then to another registrar, because an answer takes too long, and what is late then
/// takes it out for an instant. Otherwise, nobody is ever missing.
#[test]
fn no_live_element_is_lost_where_a_third_of_the_packets_is() {
    let mut absent = 0;
    for seed in 0..4 {
        let mut world = fair(seed, 2, 20, &[]);
        world.network.weather.loss = 0.3;
        absent += absence(&mut world, 1200);
    }
    println!("at 30 % loss, elements were missing in {absent} of 96000 looks");
    assert!(absent <= 20, "{absent}");
}

#[test]
fn no_live_element_is_lost_where_round_trips_are_long() {
    for seed in 0..4 {
        let mut world = fair(seed, 1, 20, &[]);
        world.network.weather.delay = (MS(400), MS(400));
        assert_eq!(absence(&mut world, 600), 0, "seed {seed}");
    }
}

#[test]
fn an_element_that_users_cannot_reach_stays_while_it_answers() {
    for seed in 0..10 {
        let mut world = fair(seed, 3, 6, &[]);
        for round in 0..30 {
            world.act(Act::Report { host: 3 + round % 6, handle: pool(0) });
            world.run_for(MS(30));
            assert_eq!(missing(&world), 0, "seed {seed}, round {round}");
        }
        settles(&mut world, MS(5000));
    }
}
