//! `tagitem.h`: tag lists, the optional arguments of the `_tags` functions.
//!
//! rsplib keeps these helpers in a library of their own (libtdtagitem). Here they are exported by
//! librserpool.so: `tagitem.h` promises them, and a program built against our headers links with
//! nothing else. Lists come from `malloc`, so that it doesn't matter whose `tagListFree` frees them
//! when both libraries are loaded.

use crate::ffi::abi::layout;
use crate::ffi::guard::{Errno, guard};
use libc::{FILE, c_uint, c_ulong, size_t};

/// A tag.
#[allow(non_camel_case_types)]
pub type tag_t = c_uint;
/// A tag's value; large enough for a pointer.
#[allow(non_camel_case_types)]
pub type tagdata_t = c_ulong;

/// One tag with its value. A list is an array that ends with TAG_DONE.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_snake_case)]
pub struct TagItem {
    /// Which tag.
    pub Tag: tag_t,
    /// Its value.
    pub Data: tagdata_t,
}

layout!(TagItem, 16, 8, { Tag: 0, Data: 8 });

/// End of the list.
pub const TAG_DONE: c_uint = 0;
/// End of the list.
pub const TAG_END: c_uint = 0;
/// Ignore this item.
pub const TAG_IGNORE: c_uint = 1;
/// The list goes on at the address in Data.
pub const TAG_MORE: c_uint = 2;
/// Ignore this item and as many after it as Data says.
pub const TAG_SKIP: c_uint = 3;
/// First tag for programs.
pub const TAG_USER: c_uint = 1_000_000;

/// Allocates a list of `items` items, all TAG_DONE; free it with tagListFree. NULL: ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListAllocate(items: size_t) -> *mut TagItem {
    guard(|| allocate(items))
}

/// Frees a list from tagListAllocate or tagListDuplicate. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListFree(tagList: *mut TagItem) {
    guard(|| {
        // SAFETY: from `malloc`, or NULL.
        unsafe { libc::free(tagList.cast()) };
        Ok(())
    })
}

/// Number of items that tagListNext would visit, plus one for the end. NULL: 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListGetSize(tagList: *mut TagItem) -> size_t {
    guard(|| {
        // SAFETY: a list, or NULL.
        Ok(if tagList.is_null() { 0 } else { unsafe { items(tagList) }.count() + 1 })
    })
}

/// Copies a list into one array without control items; free it with tagListFree. NULL: NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListDuplicate(tagList: *mut TagItem) -> *mut TagItem {
    guard(|| {
        // SAFETY: a list, or NULL.
        unsafe { duplicate(tagList, |_| true) }
    })
}

/// tagListDuplicate without the tags in `filter`, an array that ends with TAG_DONE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListDuplicateFilter(tagList: *mut TagItem, filter: *const tag_t) -> *mut TagItem {
    guard(|| {
        // SAFETY: a list, or NULL; an array that ends with TAG_DONE, or NULL.
        unsafe { duplicate(tagList, |tag| !listed(filter, tag)) }
    })
}

/// The item after `tagList`, with control items followed; NULL at the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListNext(tagList: *mut TagItem) -> *mut TagItem {
    guard(|| {
        // SAFETY: an item of a list, or NULL.
        Ok(unsafe { if tagList.is_null() { tagList } else { settle(after(tagList)) } })
    })
}

/// The first item with that tag; NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListFind(tagList: *mut TagItem, tag: tag_t) -> *mut TagItem {
    guard(|| {
        // SAFETY: a list, or NULL.
        Ok(unsafe { find(tagList, tag) })
    })
}

/// The value of the first item with that tag, else `defaultValue`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListGetData(
    tagList: *mut TagItem,
    tag: tag_t,
    defaultValue: tagdata_t,
) -> tagdata_t {
    guard(|| {
        // SAFETY: a list, or NULL.
        Ok(unsafe { get(tagList, tag) }.unwrap_or(defaultValue))
    })
}

/// Sets the value of the first item with that tag and returns it; NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListSetData(tagList: *mut TagItem, tag: tag_t, value: tagdata_t) -> *mut TagItem {
    guard(|| {
        // SAFETY: a list, or NULL.
        let found = unsafe { find(tagList, tag) };
        if !found.is_null() {
            // SAFETY: an item of the caller's list.
            unsafe { (*found).Data = value };
        }
        Ok(found)
    })
}

/// Prints a list, one item per line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tagListPrint(tagList: *mut TagItem, fd: *mut FILE) {
    guard(|| {
        if fd.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: a list, or NULL; an open stream.
        unsafe {
            libc::fprintf(fd, c"TagList:\n".as_ptr());
            for item in items(tagList) {
                let (tag, data) = ((*item).Tag, (*item).Data);
                libc::fprintf(fd, c"   %u = $%08lx (%lu)\n".as_ptr(), tag, data, data);
            }
        }
        Ok(())
    })
}

/// The value of a tag in a list that may be NULL.
pub(in crate::ffi) unsafe fn get(list: *mut TagItem, tag: tag_t) -> Option<tagdata_t> {
    // SAFETY: the caller's list.
    unsafe {
        let found = find(list, tag);
        (!found.is_null()).then(|| (*found).Data)
    }
}

fn allocate(count: usize) -> Result<*mut TagItem, Errno> {
    // At least one, so that even an empty list has its end. SAFETY: plain calloc.
    let list = unsafe { libc::calloc(count.max(1), size_of::<TagItem>()) };
    if list.is_null() { Err(Errno(libc::ENOMEM)) } else { Ok(list.cast()) }
}

unsafe fn find(list: *mut TagItem, tag: tag_t) -> *mut TagItem {
    // SAFETY: the caller's list.
    unsafe { items(list) }.find(|&item| unsafe { (*item).Tag } == tag).unwrap_or(std::ptr::null_mut())
}

unsafe fn listed(filter: *const tag_t, tag: tag_t) -> bool {
    // SAFETY: the caller's array, read up to its end.
    (0..)
        .map_while(|i| unsafe { (!filter.is_null() && *filter.add(i) != TAG_DONE).then(|| *filter.add(i)) })
        .any(|t| t == tag)
}

unsafe fn duplicate(list: *mut TagItem, keep: impl Fn(tag_t) -> bool) -> Result<*mut TagItem, Errno> {
    if list.is_null() {
        return Ok(list);
    }
    // SAFETY: the caller's list; `copy` has room for all and its end.
    unsafe {
        let copy = allocate(items(list).count() + 1)?;
        for (i, item) in items(list).filter(|&item| keep((*item).Tag)).enumerate() {
            copy.add(i).write(*item);
        }
        Ok(copy)
    }
}

/// The items that carry a value.
unsafe fn items(list: *mut TagItem) -> impl Iterator<Item = *mut TagItem> {
    // SAFETY: the caller's list.
    let first = unsafe { settle(list) };
    let first = (!first.is_null()).then_some(first);
    std::iter::successors(first, |&item| {
        // SAFETY: `item` is an item of the list and not its end.
        let next = unsafe { settle(after(item)) };
        (!next.is_null()).then_some(next)
    })
}

unsafe fn after(item: *mut TagItem) -> *mut TagItem {
    // SAFETY: `item` is not the end, so there is a next one.
    unsafe { item.add(1) }
}

/// Follows control items to the next one that carries a value; NULL at the end.
unsafe fn settle(mut item: *mut TagItem) -> *mut TagItem {
    // SAFETY: the caller's list, read up to its end.
    unsafe {
        while !item.is_null() {
            match (*item).Tag {
                TAG_DONE => return std::ptr::null_mut(),
                TAG_IGNORE => item = item.add(1),
                TAG_MORE => item = (*item).Data as *mut TagItem,
                TAG_SKIP => item = item.add((*item).Data as usize + 1),
                _ => return item,
            }
        }
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(tag: tag_t, data: tagdata_t) -> TagItem {
        TagItem { Tag: tag, Data: data }
    }

    #[test]
    fn control_items_are_followed() {
        let mut tail = [item(TAG_SKIP, 1), item(1001, 7), item(1002, 8), item(TAG_DONE, 0)];
        let more = tail.as_mut_ptr() as tagdata_t;
        let mut list = [item(TAG_IGNORE, 5), item(1000, 6), item(TAG_MORE, more)];
        let seen: Vec<_> = unsafe { items(list.as_mut_ptr()) }.map(|i| unsafe { (*i).Data }).collect();
        assert_eq!(seen, [6, 8]);
        assert_eq!(unsafe { get(list.as_mut_ptr(), 1002) }, Some(8));
        assert_eq!(unsafe { get(list.as_mut_ptr(), 1001) }, None);
        assert_eq!(unsafe { get(std::ptr::null_mut(), 1001) }, None);
    }

    #[test]
    fn a_copy_is_flat_and_filtered() {
        let mut list = [item(1000, 1), item(TAG_IGNORE, 0), item(1001, 2), item(TAG_DONE, 0)];
        let filter = [1000, TAG_DONE];
        unsafe {
            let copy = tagListDuplicateFilter(list.as_mut_ptr(), filter.as_ptr());
            assert_eq!((*copy).Tag, 1001);
            assert_eq!((*copy.add(1)).Tag, TAG_DONE);
            assert_eq!(tagListGetSize(copy), 2);
            assert_eq!((*tagListSetData(copy, 1001, 9)).Data, 9);
            tagListFree(copy);
        }
        assert_eq!(list[2].Data, 2);
    }
}
