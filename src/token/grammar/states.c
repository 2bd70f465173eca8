/* States of a grammar, made when they are first reached.
 *
 * A head is a place where a byte is awaited, with the frames to return to; a state is all heads
 * that the text so far allows, so alternatives are followed at once and nothing is tried twice.
 * Frames are shared: each pair (place, frame below) exists once. A rule called last leaves no
 * frame, so a repetition comes back to the same state, and the states of a grammar without nesting
 * are few; with nesting, each depth has its own.
 *
 * Invariants: heads of a state are sorted and distinct; equal states are one; a head's place is a
 * BYTE, CLASS or TOKEN element; node is the class's node that awaits the byte, else 0. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "token/grammar/grammar_impl.h"

enum {
    STATE_SLOTS = 1 << 15,
    FRAME_SLOTS = 1 << 19,
    SEEN_SLOTS = HD_GRAMMAR_SEEN,
    MAX_SEEN = SEEN_SLOTS / 2,
    MAX_HEAD_POOL = 1 << 22,
};
_Static_assert((int)STATE_SLOTS > (int)HD_GRAMMAR_MAX_STATES &&
                   (int)FRAME_SLOTS > (int)HD_GRAMMAR_MAX_FRAMES && (int)SEEN_SLOTS > (int)MAX_SEEN,
               "tables that are never full");

/* --- which bytes no element tells apart ---------------------------------------------------------
 */

/* Splits classes: bytes within lo … hi from the others. */
static void split(struct hd_grammar *g, unsigned lo, unsigned hi)
{
    uint16_t into[256];
    bool inside[256] = {false}, outside[256] = {false};
    for (unsigned b = 0; b < 256; b++) {
        inside[g->class_of[b]] |= b >= lo && b <= hi;
        outside[g->class_of[b]] |= b < lo || b > hi;
    }
    for (unsigned c = 0; c < 256; c++)
        into[c] = inside[c] && outside[c] ? (uint16_t)g->n_class++ : (uint16_t)c;
    for (unsigned b = lo; b <= hi; b++)
        g->class_of[b] = (uint8_t)into[g->class_of[b]];
}

static void find_byte_classes(struct hd_grammar *g)
{
    const struct hd_grammar__program *p = &g->program;
    bool byte[256] = {false};
    g->n_class = 1;
    for (size_t i = 0; i < p->n_elem; i++)
        if (p->elem[i].kind == ELEM_BYTE)
            byte[p->elem[i].value] = true;
    for (unsigned b = 0; b < 256; b++)
        if (byte[b])
            split(g, b, b);
    for (size_t i = 0; i < p->classes.n_edge && g->n_class < 256; i++)
        split(g, p->classes.edge[i].lo, p->classes.edge[i].hi);
    for (unsigned b = 256; b-- > 0;)
        g->byte_of[g->class_of[b]] = (uint8_t)b;
}

/* --- frames -------------------------------------------------------------------------------------
 */

/* The frame of this pair; 0 where there is no room. */
static uint32_t frame(struct hd_grammar *g, uint32_t pos, uint32_t parent)
{
    const struct hd_grammar__frame want = {pos, parent};
    size_t i = (size_t)hd_hash64(&want, sizeof want, 2) & g->frame_mask;
    for (; g->frame_slot[i]; i = (i + 1) & g->frame_mask) {
        const struct hd_grammar__frame *f = &g->frame[g->frame_slot[i]];
        if (f->pos == pos && f->parent == parent)
            return g->frame_slot[i];
    }
    if (hd_grammar__grow(&g->frame, &g->cap_frame, g->n_frame, sizeof *g->frame,
                         HD_GRAMMAR_MAX_FRAMES))
        return 0;
    g->frame[g->n_frame] = want;
    return g->frame_slot[i] = (uint32_t)g->n_frame++;
}

/* --- closures: from places anywhere to heads ----------------------------------------------------
 */

/* Adds a place to the work list unless it was there. */
static void visit(struct hd_grammar *g, uint32_t pos, uint32_t node, uint32_t below)
{
    const struct hd_grammar__head head = {pos, node, below};
    size_t i = (size_t)hd_hash64(&head, sizeof head, 3) & (SEEN_SLOTS - 1);
    for (; g->seen[i].closure == g->closure; i = (i + 1) & (SEEN_SLOTS - 1))
        if (!memcmp(&g->seen[i].head, &head, sizeof head))
            return;
    if (g->n_seen == MAX_SEEN ||
        hd_grammar__grow(&g->work, &g->cap_work, g->n_work, sizeof head, MAX_SEEN)) {
        g->too_large = true;
        return;
    }
    g->n_seen++;
    g->seen[i].closure = g->closure;
    g->seen[i].head = head;
    g->work[g->n_work++] = head;
}

static void enter_rule(struct hd_grammar *g, const struct hd_grammar__head *h)
{
    const struct hd_grammar__program *p = &g->program;
    const struct hd_grammar__elem *e = &p->elem[h->pos];
    const struct hd_grammar__rule *rule = &p->rule[e->value];
    uint32_t below = h->frame;
    if (e[1].kind != ELEM_END && !(below = frame(g, h->pos + 1, h->frame))) {
        g->too_large = true;
        return;
    }
    for (uint32_t i = 0; i < rule->n_alt; i++)
        visit(g, p->alt[rule->alt + i], 0, below);
}

/* Works the list off; heads are appended to the pool from `first` on. */
static void close_places(struct hd_grammar *g, size_t first)
{
    while (g->n_work && !g->too_large) {
        struct hd_grammar__head h = g->work[--g->n_work];
        const struct hd_grammar__elem *e = &g->program.elem[h.pos];
        if (e->kind == ELEM_RULE) {
            enter_rule(g, &h);
        } else if (e->kind == ELEM_END) {
            if (h.frame)
                visit(g, g->frame[h.frame].pos, 0, g->frame[h.frame].parent);
            else
                g->may_end = true;
        } else {
            if (e->kind == ELEM_CLASS && !h.node)
                h.node = e->value;
            if (g->n_head - first == HD_GRAMMAR_MAX_HEADS ||
                hd_grammar__grow(&g->head, &g->cap_head, g->n_head, sizeof h, MAX_HEAD_POOL)) {
                g->too_large = true;
                return;
            }
            g->head[g->n_head++] = h;
        }
    }
}

/* --- states -------------------------------------------------------------------------------------
 */

static int by_place(const void *a, const void *b)
{
    const struct hd_grammar__head *x = a, *y = b;
    if (x->pos != y->pos)
        return x->pos < y->pos ? -1 : 1;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return (x->frame > y->frame) - (x->frame < y->frame);
}

static enum hd_err grow_states(struct hd_grammar *g)
{
    size_t cap = g->cap_state;
    enum hd_err err = hd_grammar__grow(&g->state, &g->cap_state, g->n_state, sizeof *g->state,
                                       HD_GRAMMAR_MAX_STATES);
    if (err || g->cap_state == cap)
        return err;
    uint32_t *next = realloc(g->next, g->cap_state * g->n_class * sizeof *next);
    if (!next) {
        g->cap_state = cap;
        return HD_ERR_NOMEM;
    }
    g->next = next;
    return HD_OK;
}

/* The state of the pool's heads from `first` on, which are taken back where it is known. */
static uint32_t intern(struct hd_grammar *g, size_t first)
{
    size_t n = 0, all = g->n_head - first;
    struct hd_grammar__head *head = g->head + first;
    if (all)
        qsort(head, all, sizeof *head, by_place);
    for (size_t i = 0; i < all; i++)
        if (!n || by_place(&head[n - 1], &head[i]) != 0)
            head[n++] = head[i];
    g->n_head = first + n;
    if (!n && !g->may_end)
        return STATE_DEAD;
    uint64_t hash = hd_hash64(n ? head : NULL, n * sizeof *head, g->may_end);
    size_t i = (size_t)hash & g->state_mask;
    for (; g->state_slot[i]; i = (i + 1) & g->state_mask) {
        const struct hd_grammar__state *s = &g->state[g->state_slot[i]];
        if (s->n_head == n && s->may_end == g->may_end &&
            (!n || !memcmp(g->head + s->head, head, n * sizeof *head))) {
            g->n_head = first;
            return g->state_slot[i];
        }
    }
    if (grow_states(g)) {
        g->n_head = first;
        return STATE_UNKNOWN;
    }
    uint32_t id = (uint32_t)g->n_state++;
    g->state[id] = (struct hd_grammar__state){
        .head = (uint32_t)first, .n_head = (uint32_t)n, .may_end = g->may_end, .mask = -1};
    for (size_t k = 0; k < n; k++)
        g->state[id].has_token |= g->program.elem[head[k].pos].kind == ELEM_TOKEN;
    memset(g->next + (size_t)id * g->n_class, 0, g->n_class * sizeof *g->next);
    return g->state_slot[i] = id;
}

static void begin_closure(struct hd_grammar *g)
{
    g->n_work = g->n_seen = 0;
    g->closure++;
    g->may_end = g->too_large = false;
}

static uint32_t end_closure(struct hd_grammar *g)
{
    size_t first = g->n_head;
    close_places(g, first);
    if (g->too_large) {
        g->n_head = first;
        return STATE_UNKNOWN;
    }
    return intern(g, first);
}

/* The node after a byte; UINT32_MAX where it does not match, 0 where the character is complete. */
static uint32_t follow(const struct hd_grammar *g, uint32_t node, uint8_t byte)
{
    const struct hd_grammar__node *n = &g->program.classes.node[node];
    const struct hd_grammar__edge *edge = g->program.classes.edge + n->edge;
    uint32_t lo = 0, hi = n->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (edge[mid].hi < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n->n && edge[lo].lo <= byte ? edge[lo].to : UINT32_MAX;
}

uint32_t hd_grammar__step_slow(struct hd_grammar *g, uint32_t state, uint8_t byte)
{
    const struct hd_grammar__state s = g->state[state];
    begin_closure(g);
    for (uint32_t i = 0; i < s.n_head; i++) {
        const struct hd_grammar__head h = g->head[s.head + i];
        const struct hd_grammar__elem *e = &g->program.elem[h.pos];
        if (e->kind == ELEM_BYTE && e->value == byte)
            visit(g, h.pos + 1, 0, h.frame);
        if (e->kind != ELEM_CLASS)
            continue;
        uint32_t node = follow(g, h.node, byte);
        if (node != UINT32_MAX)
            visit(g, node ? h.pos : h.pos + 1, node, h.frame);
    }
    uint32_t next = end_closure(g);
    g->next[(size_t)state * g->n_class + g->class_of[byte]] = next;
    return next;
}

uint32_t hd_grammar__step_token(struct hd_grammar *g, uint32_t state, int32_t id)
{
    const struct hd_grammar__state s = g->state[state];
    begin_closure(g);
    for (uint32_t i = 0; i < s.n_head; i++) {
        const struct hd_grammar__head h = g->head[s.head + i];
        const struct hd_grammar__elem *e = &g->program.elem[h.pos];
        if (e->kind == ELEM_TOKEN && e->value == (uint32_t)id)
            visit(g, h.pos + 1, 0, h.frame);
    }
    return end_closure(g);
}

/* --- the whole ----------------------------------------------------------------------------------
 */

static void clear_states(struct hd_grammar *g)
{
    memset(g->state_slot, 0, STATE_SLOTS * sizeof *g->state_slot);
    memset(g->frame_slot, 0, FRAME_SLOTS * sizeof *g->frame_slot);
    for (size_t i = 0; i < HD_GRAMMAR_MASKS; i++)
        g->mask_state[i] = STATE_UNKNOWN;
    g->n_state = STATE_FIRST;
    g->n_frame = 1;
    g->n_head = 0;
    g->epoch++;
}

static uint32_t start_state(struct hd_grammar *g)
{
    const struct hd_grammar__rule *root = &g->program.rule[g->program.root];
    begin_closure(g);
    for (uint32_t i = 0; i < root->n_alt; i++)
        visit(g, g->program.alt[root->alt + i], 0, 0);
    return end_closure(g);
}

enum hd_err hd_grammar__states_init(struct hd_grammar *g)
{
    find_byte_classes(g);
    g->state_slot = calloc(STATE_SLOTS, sizeof *g->state_slot);
    g->frame_slot = calloc(FRAME_SLOTS, sizeof *g->frame_slot);
    g->state_mask = STATE_SLOTS - 1;
    g->frame_mask = FRAME_SLOTS - 1;
    g->seen = calloc(SEEN_SLOTS, sizeof *g->seen);
    g->cap_head = g->cap_state = 64;
    g->head = malloc(g->cap_head * sizeof *g->head);
    g->state = malloc(g->cap_state * sizeof *g->state);
    g->next = malloc(g->cap_state * g->n_class * sizeof *g->next);
    if (!g->state_slot || !g->frame_slot || !g->state || !g->next || !g->head || !g->seen)
        return HD_ERR_NOMEM;
    clear_states(g);
    g->start = start_state(g);
    return g->start == STATE_UNKNOWN ? HD_ERR_LIMIT
           : g->start == STATE_DEAD  ? HD_ERR_INVALID
                                     : HD_OK;
}

void hd_grammar__states_dispose(struct hd_grammar *g)
{
    free(g->state_slot);
    free(g->frame_slot);
    free(g->state);
    free(g->next);
    free(g->head);
    free(g->frame);
    free(g->work);
    free(g->seen);
    for (size_t i = 0; i < HD_GRAMMAR_MASKS; i++)
        free(g->mask[i]);
}

/* The same frames once more, from the old list into the new one. */
static uint32_t move_frame(struct hd_grammar *g, const struct hd_grammar__frame *old, uint32_t id,
                           uint32_t *chain)
{
    size_t n = 0;
    uint32_t moved = 0;
    for (; id; id = old[id].parent)
        chain[n++] = id;
    while (n) /* fewer than there were: there is room */
        moved = frame(g, old[chain[--n]].pos, moved);
    return moved;
}

uint32_t hd_grammar__tidy(struct hd_grammar *g, uint32_t state)
{
    if (g->n_state < HD_GRAMMAR_KEEP_STATES && g->n_frame < HD_GRAMMAR_KEEP_FRAMES)
        return state;
    const struct hd_grammar__state s = g->state[state];
    size_t n_frame = g->n_frame;
    struct hd_grammar__frame *old = malloc(n_frame * sizeof *old);
    uint32_t *chain = malloc(n_frame * sizeof *chain);
    struct hd_grammar__head *head = malloc((s.n_head + 1) * sizeof *head);
    uint32_t moved = STATE_UNKNOWN;
    if (old && chain && head) {
        if (g->frame)
            memcpy(old, g->frame, n_frame * sizeof *old);
        memcpy(head, g->head + s.head, s.n_head * sizeof *head);
        clear_states(g);
        begin_closure(g);
        g->start = start_state(g);
        begin_closure(g);
        for (uint32_t i = 0; i < s.n_head; i++)
            visit(g, head[i].pos, head[i].node,
                  head[i].frame ? move_frame(g, old, head[i].frame, chain) : 0);
        /* may_end belongs to the state, whose end no head shows */
        size_t first = g->n_head;
        close_places(g, first);
        g->may_end = s.may_end;
        moved = g->too_large ? STATE_UNKNOWN : intern(g, first);
    }
    free(old);
    free(chain);
    free(head);
    return moved;
}
