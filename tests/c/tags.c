/* The tag list helpers of tagitem.h. */
#define _POSIX_C_SOURCE 200809L

#include <rserpool/tagitem.h>

#include "check.h"

static void walking(void)
{
    struct TagItem more[] = {{TAG_USER + 3, 30}, {TAG_SKIP, 1}, {TAG_USER + 4, 40}, {TAG_USER + 5, 50}, {TAG_DONE, 0}};
    struct TagItem list[] = {{TAG_IGNORE, 7}, {TAG_USER + 1, 10}, {TAG_IGNORE, 7}, {TAG_USER + 2, 20}, {TAG_MORE, 0}};
    struct TagItem* item;

    list[4].Data = (tagdata_t)more;
    item = tagListNext(list);
    SAME(TAG_USER + 1, item->Tag);
    item = tagListNext(item);
    SAME(TAG_USER + 2, item->Tag);
    item = tagListNext(item);
    SAME(TAG_USER + 3, item->Tag);
    item = tagListNext(item);
    SAME(TAG_USER + 5, item->Tag);
    HOLDS(tagListNext(item) == NULL);

    SAME(5, tagListGetSize(list));
    SAME(50, tagListFind(list, TAG_USER + 5)->Data);
    HOLDS(tagListFind(list, TAG_USER + 4) == NULL);
    SAME(30, tagListGetData(list, TAG_USER + 3, 99));
    SAME(99, tagListGetData(list, TAG_USER + 9, 99));
    SAME(31, tagListSetData(list, TAG_USER + 3, 31)->Data);
    SAME(31, more[0].Data);
    HOLDS(tagListSetData(list, TAG_USER + 9, 1) == NULL);
}

static void copying(void)
{
    const tag_t filter[] = {TAG_USER + 1, TAG_DONE};
    struct TagItem* list = tagListAllocate(3);
    struct TagItem* copy;

    HOLDS(list != NULL);
    SAME(1, tagListGetSize(list));
    list[0].Tag = TAG_USER + 1;
    list[0].Data = 11;
    list[1].Tag = TAG_USER + 2;
    list[1].Data = 22;
    copy = tagListDuplicate(list);
    SAME(3, tagListGetSize(copy));
    SAME(11, tagListGetData(copy, TAG_USER + 1, 0));
    tagListFree(copy);
    copy = tagListDuplicateFilter(list, filter);
    SAME(2, tagListGetSize(copy));
    SAME(0, tagListGetData(copy, TAG_USER + 1, 0));
    SAME(22, tagListGetData(copy, TAG_USER + 2, 0));
    tagListFree(copy);
    copy = tagListDuplicateFilter(list, NULL);
    SAME(3, tagListGetSize(copy));
    tagListFree(copy);
    tagListFree(list);
}

static void printing(void)
{
    struct TagItem list[] = {{TAG_USER + 1, 10}, {TAG_DONE, 0}};
    char* text = NULL;
    size_t size = 0;
    FILE* stream = open_memstream(&text, &size);

    tagListPrint(list, stream);
    fclose(stream);
    HOLDS(strstr(text, "1000001") != NULL && strstr(text, "10") != NULL);
    free(text);
    tagListPrint(list, NULL);
    tagListPrint(NULL, stdout);
}

static void nothing(void)
{
    HOLDS(tagListNext(NULL) == NULL);
    HOLDS(tagListFind(NULL, 1) == NULL);
    HOLDS(tagListDuplicate(NULL) == NULL);
    HOLDS(tagListDuplicateFilter(NULL, NULL) == NULL);
    HOLDS(tagListSetData(NULL, 1, 2) == NULL);
    SAME(5, tagListGetData(NULL, 1, 5));
    SAME(0, tagListGetSize(NULL));
    tagListFree(NULL);
    errno = 0;
    HOLDS(tagListAllocate((size_t)-1) == NULL && errno == ENOMEM);
}

int main(void)
{
    walking();
    copying();
    printing();
    nothing();
    return checked();
}
