/* Reliable Server Pooling (RFC 5351-5356), classic RSerPool socket API. SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by cbindgen from src/ffi; `RSP_BLESS=1 cargo test --test header` writes it anew. */

#ifndef TAGITEM_H
#define TAGITEM_H

#include <stddef.h>
#include <stdio.h>

/* End of the list. */
#define TAG_DONE 0

/* End of the list. */
#define TAG_END 0

/* Ignore this item. */
#define TAG_IGNORE 1

/* The list goes on at the address in Data. */
#define TAG_MORE 2

/* Ignore this item and as many after it as Data says. */
#define TAG_SKIP 3

/* First tag for programs. */
#define TAG_USER 1000000

/* A tag. */
typedef unsigned int tag_t;

/* A tag's value; large enough for a pointer. */
typedef unsigned long tagdata_t;

/* One tag with its value. A list is an array that ends with TAG_DONE. */
struct TagItem {
    /* Which tag. */
    tag_t Tag;
    /* Its value. */
    tagdata_t Data;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Allocates a list of `items` items, all TAG_DONE; free it with tagListFree. NULL: ENOMEM. */
struct TagItem *tagListAllocate(size_t items);

/* Frees a list from tagListAllocate or tagListDuplicate. NULL is fine. */
void tagListFree(struct TagItem *tagList);

/* Number of items that tagListNext would visit, plus one for the end. NULL: 0. */
size_t tagListGetSize(struct TagItem *tagList);

/* Copies a list into one array without control items; free it with tagListFree. NULL: NULL. */
struct TagItem *tagListDuplicate(struct TagItem *tagList);

/* tagListDuplicate without the tags in `filter`, an array that ends with TAG_DONE. */
struct TagItem *tagListDuplicateFilter(struct TagItem *tagList, const tag_t *filter);

/* The item after `tagList`, with control items followed; NULL at the end. */
struct TagItem *tagListNext(struct TagItem *tagList);

/* The first item with that tag; NULL if there is none. */
struct TagItem *tagListFind(struct TagItem *tagList, tag_t tag);

/* The value of the first item with that tag, else `defaultValue`. */
tagdata_t tagListGetData(struct TagItem *tagList, tag_t tag, tagdata_t defaultValue);

/* Sets the value of the first item with that tag and returns it; NULL if there is none. */
struct TagItem *tagListSetData(struct TagItem *tagList, tag_t tag, tagdata_t value);

/* Prints a list, one item per line. */
void tagListPrint(struct TagItem *tagList, FILE *fd);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif
