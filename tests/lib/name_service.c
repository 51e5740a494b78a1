/* A directory service, as two modules in one: users for the C library (libnss_test.so.2) and subordinate IDs for
 * shadow's programs (libsubid_test.so). /etc/directory/passwd and /etc/directory/subid have what it knows. */
#define _GNU_SOURCE
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct range {
    unsigned long start, count;
};

static enum nss_status find(const char *name, uid_t uid, struct passwd *entry, char *buffer, size_t size, int *error)
{
    FILE *file = fopen("/etc/directory/passwd", "re");
    struct passwd *found = NULL;

    while (file && !fgetpwent_r(file, entry, buffer, size, &found))
        if (name ? !strcmp(entry->pw_name, name) : entry->pw_uid == uid)
            break;
    if (file)
        fclose(file);
    *error = ENOENT;
    return found ? NSS_STATUS_SUCCESS : NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_test_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size, int *error)
{
    return find(name, 0, entry, buffer, size, error);
}

enum nss_status _nss_test_getpwuid_r(uid_t uid, struct passwd *entry, char *buffer, size_t size, int *error)
{
    return find(NULL, uid, entry, buffer, size, error);
}

/* The kinds of IDs share the ranges. */
int shadow_subid_list_owner_ranges(const char *owner, int kind, struct range **ranges, int *count)
{
    FILE *file = fopen("/etc/directory/subid", "re");
    char name[64];
    struct range next;

    (void)kind;
    *ranges = NULL;
    *count = 0;
    while (file && fscanf(file, "%63[^:]:%lu:%lu\n", name, &next.start, &next.count) == 3)
        if (!strcmp(name, owner) && (*ranges = realloc(*ranges, (*count + 1) * sizeof next)))
            (*ranges)[(*count)++] = next;
    if (file)
        fclose(file);
    return 0;
}

int shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count, int kind, bool *result)
{
    struct range *ranges;
    int number;

    shadow_subid_list_owner_ranges(owner, kind, &ranges, &number);
    *result = false;
    while (number--)
        *result |= ranges[number].start <= start && start + count <= ranges[number].start + ranges[number].count;
    free(ranges);
    return 0;
}

void shadow_subid_free(void *memory) { free(memory); }

int shadow_subid_find_subid_owners(unsigned long id, int kind, uid_t **owners, int *count)
{
    (void)id;
    (void)kind;
    *owners = NULL;
    *count = 0;
    return 0;
}
