//! Lists of millions that grow in steps: beyond the first thousands nothing in them moves, so that nobody pays for a copy of all
//! when one more comes.

use std::ops::{Index, IndexMut};

/// Large, so that the list of chunks of a million elements stays in the nearest cache (61 entries); and small enough that
/// to move the one chunk that grows by need takes a fraction of a millisecond.
const CHUNK: usize = 1 << 14;

/// A list that only grows.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    pub(crate) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Where it is.
    pub(crate) fn push(&mut self, one: T) -> usize {
        // The first chunk grows by need (a cached pool has a handful of elements), the others are as large as
        // they get.
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK }));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { unreachable!("pushed above") };
        chunk.push(one);
        before + chunk.len() - 1
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;
    fn index(&self, at: usize) -> &T {
        &self.chunks[at / CHUNK][at % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

/// Numbered places, used again when they are free. Not the crate `slab`, which copies all of them when it grows.
#[derive(Debug)]
pub(super) struct Places<T> {
    places: Chunks<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Places<T> {
        Places { places: Chunks::default(), free: Vec::new() }
    }
}

impl<T> Places<T> {
    pub(super) fn insert(&mut self, one: T) -> u32 {
        let Some(place) = self.free.pop() else { return self.places.push(Some(one)) as u32 };
        self.places[place as usize] = Some(one);
        place
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        let removed = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(removed)
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_when_more_comes() {
        let mut list = Chunks::default();
        let count = 10 * CHUNK + 3;
        let places: Vec<usize> = (0..count).map(|number| list.push(number)).collect();
        assert!(places.into_iter().eq(0..count) && (0..count).all(|at| list[at] == at));
        assert_eq!((list.len(), list.get(count)), (count, None));
        let before: Vec<*const usize> = (0..count).map(|at| &raw const list[at]).collect();
        for more in 0..100 * CHUNK {
            list.push(more);
        }
        assert!((CHUNK..10 * CHUNK).all(|at| &raw const list[at] == before[at]));
    }

    #[test]
    fn free_places_are_used_again() {
        let mut places = Places::default();
        let all: Vec<u32> = (0..1000).map(|number| places.insert(number)).collect();
        assert!(all.into_iter().eq(0..1000));
        assert_eq!((places.remove(7), places.remove(7)), (Some(7), None));
        assert_eq!((places.get(7), places.len()), (None, 999));
        assert_eq!((places.remove(500), places.remove(1000)), (Some(500), None));
        assert_eq!((places.insert(1), places.insert(2), places.insert(3)), (500, 7, 1000));
        assert_eq!((places.get(7), places.get(1001)), (Some(&2), None));
        assert_eq!(places.get_mut(1000), Some(&mut 3));
    }
}
