/* Identifiers are holes of an entry. Engines give each container new ones: the rest of their requests is the same.
 *
 * Python has written down the identifiers of the request that it planned: runs of at least SHORTEST hexadecimal digits
 * and dashes. Here they are compared with what is in their places now; then the entry gets the new ones wherever it has
 * the old ones, or the beginning of one. A new one has its length, and dashes where it has them, so no path gets
 * another structure; two that differ go on differing in their beginnings, also from all other text of the request, so
 * that planning would have distinguished them as well. Everything else in the entry is compared as ever, with the new
 * ones in it. */
#include "entry.h"

#include <sys/random.h>

enum { SHORTEST = 12, LONGEST = 128, MOST = 32, MOST_ELEMENTS = 256 };

static struct {
    char before[LONGEST], now[LONGEST]; /* with NULs behind them */
} holes[MOST];
static size_t count;
static bool begins[256]; /* whether an identifier begins with this character */

static bool is_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-'; }

/* Returns the length of the identifier with which a text begins; 0 without one. */
static size_t skipped(const char *text)
{
    size_t run = 0;

    while (is_digit(text[run]))
        run++;
    return run >= SHORTEST ? run : 0;
}

bool holes_is_identifier(const char *text) { return *text && text[skipped(text)] == '\0'; }

/* An index for finding entries, not more: it leaves identifiers out, unless they are none, and the order of what is
 * shuffled. */
uint64_t holes_hash(uint64_t so_far, const char *text, bool whole)
{
    do {
        text += whole ? 0 : skipped(text);
        so_far = (so_far ^ (unsigned char)*text) * 0x100000001b3;
    } while (*text++);
    return so_far;
}

uint64_t holes_sum(const char *text)
{
    uint64_t sum = 0, pair = 0;

    do {
        uint64_t mixed;

        text += skipped(text);
        pair = (pair << 8 | (unsigned char)*text) & 0xffff;
        mixed = (pair + 1) * 0x9e3779b97f4a7c15;
        sum += (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15;
    } while (*text++);
    return sum;
}

bool holes_take(const struct plan *entry, const struct op *step)
{
    const char *value = text_of(entry, step, 0), *end = value + step->s[0].length;

    memset(holes, 0, sizeof holes);
    memset(begins, 0, sizeof begins);
    for (count = 0; value < end; value += strlen(value) + 1) {
        if (count == MOST || strlen(value) < SHORTEST || strlen(value) >= LONGEST)
            return false;
        strcpy(holes[count++].before, value);
        begins[(unsigned char)*value] = true;
    }
    return true;
}

/* Returns the length of the identifier, or of its beginning, with which a text begins; 0 without one. */
static size_t hole_at(const char *text, size_t left, size_t *which)
{
    for (size_t i = 0; begins[(unsigned char)*text] && i < count; i++) {
        size_t length = 0;

        while (length < left && holes[i].before[length] && holes[i].before[length] == text[length])
            length++;
        *which = i;
        if (length >= SHORTEST)
            return length;
    }
    return 0;
}

static bool is_same_in(size_t which, const char *text, size_t length)
{
    const char *before = holes[which].before;
    char *now = holes[which].now;

    for (size_t i = 0; i < length; i++) {
        if (!is_digit(text[i]) || (text[i] == '-') != (before[i] == '-'))
            return false;
        if (now[i] && now[i] != text[i])
            return false;
        now[i] = text[i];
    }
    return true;
}

static bool is_same(const char *before, const char *now, size_t size)
{
    size_t which, length;

    for (size_t at = 0; at < size; at += length) {
        length = hole_at(before + at, size - at, &which);
        if (length ? !is_same_in(which, now + at, length) : before[at] != now[at])
            return false;
        length += !length;
    }
    return true;
}

bool holes_match(const char *before, const char *now)
{
    return strlen(before) == strlen(now) && is_same(before, now, strlen(now));
}

/* --- config.json --- */

struct text {
    const char *next, *end;
};

static bool begins_with(struct text *text, const char *element)
{
    size_t length = strlen(element);

    if ((size_t)(text->end - text->next) < length || !is_same(element, text->next, length))
        return false;
    text->next += length;
    return true;
}

/* Whether a text begins with the elements of a list in any order, separated by commas. No element is the beginning of
 * another: they are strings or objects of JSON. The first of the four strings has no such list. */
static bool begins_with_all(struct text *text, const struct plan *entry, const struct op *step, int which)
{
    const char *list = text_of(entry, step, which), *end = list + (which > 1 ? step->s[which].length : 0);
    bool is_used[MOST_ELEMENTS] = {false};
    int elements = 0;

    for (const char *each = list; each < end; each += strlen(each) + 1)
        elements++;
    if (elements > MOST_ELEMENTS)
        return false;
    for (int found = 0; found < elements; found++) {
        const char *each = list;
        int i = 0;

        if (found && !begins_with(text, ","))
            return false;
        for (; i < elements && (is_used[i] || !begins_with(text, each)); i++)
            each += strlen(each) + 1;
        if (i == elements)
            return false;
        is_used[i] = true;
    }
    return true;
}

bool holes_match_config(const struct plan *entry, const struct op *step, const char *config, size_t size)
{
    const char *fixed = text_of(entry, step, 1), *end = fixed + step->s[1].length;
    struct text text = {config, config + size};

    if (fixed == end)
        return true;
    for (int which = 1; fixed < end; fixed += strlen(fixed) + 1, which++) {
        if (which >= PLAN_STRINGS || !begins_with_all(&text, entry, step, which) || !begins_with(&text, fixed))
            return false;
    }
    return text.next == text.end;
}

static bool is_new_one(const char *text, size_t left)
{
    for (size_t i = 0; i < count && left >= SHORTEST; i++)
        if (*text == *holes[i].now && memcmp(text, holes[i].now, SHORTEST) == 0)
            return true;
    return false;
}

/* Nothing in the request binds the random digits at the end of a container's name. */
static void choose(char *now, size_t length)
{
    unsigned char random[LONGEST] = {0};

    (void)!getrandom(random, length, 0);
    for (size_t i = 0; i < length; i++)
        now[i] = "0123456789abcdef"[random[i] % 16];
}

bool holes_fill(char *strings, size_t size)
{
    size_t which, length;

    for (size_t i = 0; i < count; i++) {
        if (!*holes[i].now)
            choose(holes[i].now, strlen(holes[i].before));
        if (strlen(holes[i].now) != strlen(holes[i].before))
            return false;
        for (size_t j = 0; j < i; j++)
            if (memcmp(holes[i].now, holes[j].now, SHORTEST) == 0)
                return false;
    }
    for (size_t at = 0; at < size; at += length ? length : 1) {
        length = hole_at(strings + at, size - at, &which);
        if (length)
            memcpy(strings + at, holes[which].now, length);
        else if (is_new_one(strings + at, size - at))
            return false;
    }
    return true;
}
