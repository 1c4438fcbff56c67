//! A B+ tree for small keys and values. The standard library's is built of nodes of eleven; of nodes
//! this wide a tree of 100 000 is three high instead of five or six, which halves what a registration
//! waits for memory. Bounds of children lie apart from the children, so that all of a large tree's stay
//! in the cache. A tree of a few entries is one short list.

use std::iter::Rev;
use std::{mem, slice};

/// A node with this many entries is split before one more comes in.
const FULL: usize = 64;
/// A node other than the root has at least this many.
const LOW: usize = FULL / 4;
/// More levels than [`LOW`] children each can fill with `u32::MAX` entries.
const LEVELS: usize = 9;

#[derive(Debug)]
enum Node<K, V> {
    /// The largest key first, so that to take out the smallest moves no other.
    Leaf(Vec<(K, V)>),
    Inner(Box<Inner<K, V>>),
}

#[derive(Debug)]
struct Inner<K, V> {
    /// A lower bound of each child's keys, above all keys of the child before it. The first child's
    /// counts as below everything.
    bounds: Vec<K>,
    children: Vec<Node<K, V>>,
    /// Where the last entry went in. Often the next one belongs there too: loads that rise by equal steps do
    /// so in the order of their elements.
    recent: usize,
}

impl<K, V> Inner<K, V> {
    fn new(bounds: Vec<K>, children: Vec<Node<K, V>>) -> Box<Inner<K, V>> {
        Box::new(Inner { bounds, children, recent: 0 })
    }
}

#[derive(Debug)]
pub(super) struct Tree<K, V> {
    root: Node<K, V>,
}

impl<K: Copy + Ord, V: Copy> Tree<K, V> {
    pub(super) const fn new() -> Tree<K, V> {
        Tree { root: Node::Leaf(Vec::new()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.root, Node::Leaf(entries) if entries.is_empty())
    }

    /// The entry of the smallest key.
    pub(super) fn first(&self) -> Option<(K, V)> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(entries) => return entries.last().copied(),
                Node::Inner(inner) => node = &inner.children[0],
            }
        }
    }

    /// The value so many places behind the smallest key's, where both are in one leaf.
    pub(super) fn behind_first(&self, places: usize) -> Option<V> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(entries) => return entries.iter().rev().nth(places).map(|entry| entry.1),
                Node::Inner(inner) => node = &inner.children[0],
            }
        }
    }

    /// The value of the smallest key.
    pub(super) fn first_mut(&mut self) -> Option<(K, &mut V)> {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Leaf(entries) => return entries.last_mut().map(|entry| (entry.0, &mut entry.1)),
                Node::Inner(inner) => node = &mut inner.children[0],
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = place(entries, key);
                    return entries.get_mut(at).filter(|entry| entry.0 == key).map(|entry| &mut entry.1);
                }
                Node::Inner(inner) => {
                    let at = inner.child_of(key);
                    node = &mut inner.children[at];
                }
            }
        }
    }

    /// The value of `key`, if there is one already; else `value` becomes it.
    pub(super) fn get_or_insert(&mut self, key: K, value: V) -> Option<&mut V> {
        if self.root.is_full() {
            let (middle, right) = self.root.split();
            let left = mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            let bounds = vec![key.min(middle), middle];
            self.root = Node::Inner(Inner::new(bounds, vec![left, right]));
        }
        let (mut node, mut above) = (&mut self.root, 0);
        loop {
            match node {
                Node::Leaf(entries) => {
                    // The leaves of so small a tree are in the cache, where what counts is how many are looked at.
                    let at = match above {
                        0 | 1 => entries.partition_point(|entry| entry.0 > key),
                        _ => place(entries, key),
                    };
                    if entries.get(at).is_some_and(|entry| entry.0 == key) {
                        return Some(&mut entries[at].1);
                    }
                    entries.insert(at, (key, value));
                    return None;
                }
                Node::Inner(inner) => {
                    let mut at = inner.child_to_fill(key);
                    if inner.children[at].is_full() {
                        let (middle, right) = inner.children[at].split();
                        inner.bounds.insert(at + 1, middle);
                        inner.children.insert(at + 1, right);
                        at += usize::from(key >= middle);
                    }
                    node = &mut inner.children[at];
                    above += 1;
                }
            }
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let removed = self.root.remove(key);
        self.lower();
        removed
    }

    /// Removes the entry of the smallest key.
    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        let mut node = &mut self.root;
        while let Node::Inner(inner) = node {
            node = &mut inner.children[0];
        }
        // Mostly that is all.
        if let Node::Leaf(entries) = node
            && entries.len() > LOW
        {
            return entries.pop();
        }
        let removed = self.root.pop_first();
        self.lower();
        removed
    }

    /// An only child becomes the root.
    fn lower(&mut self) {
        if let Node::Inner(inner) = &mut self.root
            && inner.children.len() == 1
            && let Some(only) = inner.children.pop()
        {
            self.root = only;
        }
    }

    /// Entries in order of their keys, those above `after` only.
    pub(super) fn after(&self, after: Option<K>) -> Iter<'_, K, V> {
        let mut iter = Iter { above: [const { None }; LEVELS], height: 0, leaf: [].iter().rev() };
        match after {
            None => iter.descend(&self.root),
            Some(key) => iter.descend_after(&self.root, key),
        }
        iter
    }

    /// Shows the values in order of their keys as long as `more` says so; cheaper than an iterator for a few.
    pub(super) fn show(&self, mut more: impl FnMut(V) -> bool) {
        self.root.show(&mut more);
    }

    /// All entries in order of their keys.
    #[cfg(test)]
    pub(super) fn iter(&self) -> Iter<'_, K, V> {
        self.after(None)
    }
}

/// How many entries, of those in order, come before the first that is not `before`.
///
/// The last of each cache line's worth is looked at, then one line's worth. Unlike those of a binary
/// search, no read waits for another's outcome, so that a node out of the cache costs one wait for memory
/// instead of three or four.
fn count_before<T>(entries: &[T], before: impl Fn(&T) -> bool) -> usize {
    let line = const { 64 / size_of::<T>() };
    let lines = entries.chunks_exact(line).filter(|entries| before(&entries[line - 1])).count();
    let start = lines * line;
    let rest = entries[start..].iter().take(line);
    start + rest.filter(|entry| before(entry)).count()
}

/// Index of the first entry of a leaf that is not above `key`.
fn place<K: Ord + Copy, V>(entries: &[(K, V)], key: K) -> usize {
    count_before(entries, |entry| entry.0 > key)
}

impl<K: Copy + Ord, V> Inner<K, V> {
    /// Index of the child that `key` belongs into.
    fn child_of(&self, key: K) -> usize {
        count_before(&self.bounds[1..], |&bound| bound <= key)
    }
}

impl<K: Copy + Ord, V> Inner<K, V> {
    /// The same for a key that comes in, most likely near the last one that did.
    fn child_to_fill(&mut self, key: K) -> usize {
        let at = self.recent;
        let within = (at == 0 || self.bounds.get(at).is_some_and(|&bound| bound <= key))
            && self.bounds.get(at + 1).is_none_or(|&next| key < next);
        if !within {
            self.recent = self.child_of(key);
        }
        self.recent
    }
}

impl<K: Copy + Ord, V: Copy> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    fn is_full(&self) -> bool {
        self.len() >= FULL
    }

    /// Cuts off the upper half and returns it with its lower bound.
    fn split(&mut self) -> (K, Node<K, V>) {
        match self {
            Node::Leaf(entries) => {
                let lower = second_half(entries);
                let upper = mem::replace(entries, lower);
                (upper[upper.len() - 1].0, Node::Leaf(upper))
            }
            Node::Inner(inner) => {
                let (bounds, children) = (second_half(&mut inner.bounds), second_half(&mut inner.children));
                (bounds[0], Node::Inner(Inner::new(bounds, children)))
            }
        }
    }

    fn remove(&mut self, key: K) -> Option<V> {
        match self {
            Node::Leaf(entries) => {
                let at = place(entries, key);
                entries.get(at).filter(|entry| entry.0 == key)?;
                Some(entries.remove(at).1)
            }
            Node::Inner(inner) => {
                let at = inner.child_of(key);
                let removed = inner.children[at].remove(key)?;
                if inner.children[at].len() < LOW {
                    inner.fill_up(at);
                }
                Some(removed)
            }
        }
    }

    /// Whether there may be more.
    fn show(&self, more: &mut impl FnMut(V) -> bool) -> bool {
        match self {
            Node::Leaf(entries) => entries.iter().rev().all(|entry| more(entry.1)),
            Node::Inner(inner) => inner.children.iter().all(|child| child.show(more)),
        }
    }

    fn pop_first(&mut self) -> Option<(K, V)> {
        match self {
            Node::Leaf(entries) => entries.pop(),
            Node::Inner(inner) => {
                let removed = inner.children[0].pop_first()?;
                if inner.children[0].len() < LOW {
                    inner.fill_up(0);
                }
                Some(removed)
            }
        }
    }
}

/// Cuts off what stands in the second half of a full list.
fn second_half<T>(entries: &mut Vec<T>) -> Vec<T> {
    let mut upper = Vec::with_capacity(FULL);
    upper.extend(entries.drain(FULL / 2..));
    upper
}

impl<K: Copy + Ord, V: Copy> Inner<K, V> {
    /// Merges a child that has become too small with a neighbour, or shares the neighbour's entries.
    fn fill_up(&mut self, at: usize) {
        let left = at.saturating_sub(1);
        // An only child stays as it is: its parent is about to be filled up itself.
        let Some([first, second]) = self.children.get_mut(left..left + 2) else { return };
        let bound = &mut self.bounds[left + 1];
        let second_is_empty = match (first, second) {
            (Node::Leaf(a), Node::Leaf(b)) => {
                even_out(b, a);
                if a.is_empty() {
                    mem::swap(a, b);
                }
                b.last().map(|entry| *bound = entry.0).is_none()
            }
            (Node::Inner(a), Node::Inner(b)) => {
                // Within its new node it may not be the first any more: then the bound counts.
                b.bounds[0] = *bound;
                even_out(&mut a.bounds, &mut b.bounds);
                even_out(&mut a.children, &mut b.children);
                b.bounds.first().map(|first| *bound = *first).is_none()
            }
            _ => unreachable!("all leaves are equally deep"),
        };
        if second_is_empty {
            self.bounds.remove(left + 1);
            self.children.remove(left + 1);
        }
    }
}

/// Moves entries between two neighbours, all to the first if there are few.
fn even_out<T>(a: &mut Vec<T>, b: &mut Vec<T>) {
    let total = a.len() + b.len();
    let half = total / 2;
    if total <= FULL * 3 / 4 {
        a.append(b);
    } else if a.len() < half {
        a.extend(b.drain(..half - a.len()));
    } else {
        b.splice(..0, a.drain(half..));
    }
}

/// What is left of an inner node.
type Rest<'a, K, V> = slice::Iter<'a, Node<K, V>>;

/// Entries in order of their keys.
#[derive(Debug)]
pub(super) struct Iter<'a, K, V> {
    /// What is left of the inner nodes above the current leaf, root first.
    above: [Option<Rest<'a, K, V>>; LEVELS],
    height: usize,
    leaf: Rev<slice::Iter<'a, (K, V)>>,
}

impl<'a, K: Copy + Ord, V: Copy> Iter<'a, K, V> {
    fn push(&mut self, rest: &'a [Node<K, V>]) {
        self.above[self.height] = Some(rest.iter());
        self.height += 1;
    }

    fn descend(&mut self, mut node: &'a Node<K, V>) {
        loop {
            match node {
                Node::Leaf(entries) => return self.leaf = entries.iter().rev(),
                Node::Inner(inner) => {
                    self.push(&inner.children[1..]);
                    node = &inner.children[0];
                }
            }
        }
    }

    fn descend_after(&mut self, mut node: &'a Node<K, V>, key: K) {
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|entry| entry.0 > key);
                    return self.leaf = entries[..at].iter().rev();
                }
                Node::Inner(inner) => {
                    let at = inner.child_of(key);
                    self.push(&inner.children[at + 1..]);
                    node = &inner.children[at];
                }
            }
        }
    }
}

impl<K: Copy + Ord, V: Copy> Iterator for Iter<'_, K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            if let Some(&entry) = self.leaf.next() {
                return Some(entry);
            }
            let level = self.height.checked_sub(1)?;
            match self.above[level].as_mut().and_then(Iterator::next) {
                Some(node) => self.descend(node),
                None => self.height = level,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Height of the tree; all promises about its nodes hold.
    fn check(node: &Node<u32, u32>, low: Option<u32>, high: Option<u32>, root: bool) -> usize {
        let keys: Vec<u32> = match node {
            Node::Leaf(entries) => entries.iter().rev().map(|e| e.0).collect(),
            Node::Inner(inner) => inner.bounds[1..].to_vec(),
        };
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert!(keys.iter().all(|&key| low.is_none_or(|l| l <= key) && high.is_none_or(|h| key < h)));
        assert!(root || node.len() >= LOW);
        assert!(node.len() <= FULL);
        let Node::Inner(inner) = node else { return 1 };
        assert!(inner.children.len() > 1);
        assert_eq!(inner.children.len(), inner.bounds.len());
        let mut heights: Vec<usize> = Vec::new();
        for (i, child) in inner.children.iter().enumerate() {
            let low = if i == 0 { low } else { Some(inner.bounds[i]) };
            let high = inner.bounds.get(i + 1).copied().or(high);
            heights.push(check(child, low, high, false));
        }
        assert!(heights.iter().all(|&h| h == heights[0]));
        heights[0] + 1
    }

    fn compare(tree: &Tree<u32, u32>, plain: &BTreeMap<u32, u32>, probe: u32) -> usize {
        assert!(tree.iter().eq(plain.iter().map(|(&k, &v)| (k, v))));
        let above = plain.range((std::ops::Bound::Excluded(probe), std::ops::Bound::Unbounded));
        assert!(tree.after(Some(probe)).eq(above.map(|(&k, &v)| (k, v))));
        assert_eq!(tree.first(), plain.first_key_value().map(|(&k, &v)| (k, v)));
        assert_eq!(tree.is_empty(), plain.is_empty());
        let mut left = probe as usize % 200 + 1;
        let (mut shown, wanted) = (Vec::new(), left);
        tree.show(|value| {
            shown.push(value);
            left -= 1;
            left > 0
        });
        assert!(shown.iter().eq(plain.values().take(wanted)));
        if let Some(value) = tree.behind_first(3) {
            assert_eq!(plain.values().nth(3), Some(&value));
        }
        check(&tree.root, None, None, true)
    }

    #[test]
    fn agrees_with_the_standard_one_up_and_down() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut highest = 0;
        for order in 0..6 {
            let (mut tree, mut plain) = (Tree::new(), BTreeMap::new());
            let key = |rng: &mut fastrand::Rng, step: u32| match order {
                0 => step,
                1 => u32::MAX - step,
                2 | 3 => rng.u32(0..40_000),
                _ => rng.u32(..),
            };
            for step in 0..30_000 {
                let (key, value) = (key(&mut rng, step), rng.u32(..));
                let known = plain.get(&key).copied();
                assert_eq!(tree.get_mut(key).copied(), known);
                assert_eq!(tree.get_or_insert(key, value).copied(), known);
                plain.entry(key).or_insert(value);
                if order % 2 == 1 && step % 3 == 0 {
                    let gone = rng.u32(0..40_000);
                    assert_eq!(tree.remove(gone), plain.remove(&gone));
                }
                if step % 1013 == 0 {
                    highest = highest.max(compare(&tree, &plain, key));
                }
            }
            let mut keys: Vec<u32> = plain.keys().copied().collect();
            match order {
                0 | 3 => {}
                1 => keys.reverse(),
                _ => rng.shuffle(&mut keys),
            }
            for (step, key) in keys.into_iter().enumerate() {
                if step % 2 == 0 {
                    assert_eq!(tree.first_mut().map(|(k, v)| (k, *v)), tree.first());
                    assert_eq!(tree.pop_first(), plain.pop_first());
                }
                assert_eq!(tree.remove(key), plain.remove(&key));
                assert_eq!(tree.remove(key), None);
                if step % 1013 == 0 || plain.len() < 200 {
                    compare(&tree, &plain, key);
                }
            }
            assert!(tree.is_empty() && tree.first().is_none() && tree.pop_first().is_none());
            assert!([1, 2, 3].map(|key| tree.get_or_insert(key, 10 * key).is_none()) == [true; 3]);
            assert_eq!([0, 1, 2, 3].map(|at| tree.behind_first(at)), [Some(10), Some(20), Some(30), None]);
        }
        assert_eq!(highest, 3);
    }
}
