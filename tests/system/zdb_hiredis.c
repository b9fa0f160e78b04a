/* An ordinary hiredis program against a zdb server: what a client in C relies on. Exit 0: all of it held. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(what)                                                                                \
  do {                                                                                             \
    if (!(what)) {                                                                                 \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #what, c->errstr);                           \
      return 1;                                                                                    \
    }                                                                                              \
  } while (0)

static redisReply *say(redisContext *c, int argc, const char **argv, const size_t *sizes) {
  return redisCommandArgv(c, argc, argv, sizes);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  redisContext *c = redisConnect(argv[1], atoi(argv[2]));
  NEED(c != NULL && c->err == 0);
  redisReply *r = redisCommand(c, "PING");
  NEED(r && r->type == REDIS_REPLY_STATUS && strcmp(r->str, "PONG") == 0);
  freeReplyObject(r);

  /* Binary keys and values; SET answers the key, the same again nil. */
  const char *set[] = {"SET", "k\0y", "v\r\n\0x"};
  const size_t sizes[] = {3, 3, 5};
  r = say(c, 3, set, sizes);
  NEED(r && r->type == REDIS_REPLY_STRING && r->len == 3 && memcmp(r->str, "k\0y", 3) == 0);
  freeReplyObject(r);
  r = say(c, 3, set, sizes);
  NEED(r && r->type == REDIS_REPLY_NIL);
  freeReplyObject(r);
  const char *get[] = {"GET", "k\0y"};
  r = say(c, 2, get, sizes);
  NEED(r && r->type == REDIS_REPLY_STRING && r->len == 5 && memcmp(r->str, "v\r\n\0x", 5) == 0);
  freeReplyObject(r);

  /* A large value. */
  size_t large = 8 << 20;
  char *value = malloc(large);
  NEED(value != NULL);
  for (size_t i = 0; i < large; ++i) value[i] = (char)(i * 31 >> 3);
  r = redisCommand(c, "SET large %b", value, large);
  NEED(r && r->type == REDIS_REPLY_STRING);
  freeReplyObject(r);
  r = redisCommand(c, "GET large");
  NEED(r && r->type == REDIS_REPLY_STRING && r->len == large && memcmp(r->str, value, large) == 0);
  freeReplyObject(r);
  free(value);

  /* A pipeline of ten thousand, answered in order. */
  for (int i = 0; i < 10000; ++i) NEED(redisAppendCommand(c, "SET p%d v%d", i, i) == REDIS_OK);
  for (int i = 0; i < 10000; ++i) {
    char key[32];
    snprintf(key, sizeof key, "p%d", i);
    NEED(redisGetReply(c, (void **)&r) == REDIS_OK && r->type == REDIS_REPLY_STRING &&
         strcmp(r->str, key) == 0);
    freeReplyObject(r);
  }

  /* A walk over all keys: cursors are 17 bytes, the end is an error. */
  long seen = 0;
  char cursor[17];
  for (int first = 1;; first = 0) {
    r = first ? redisCommand(c, "SCAN") : redisCommand(c, "SCAN %b", cursor, sizeof cursor);
    NEED(r != NULL);
    if (r->type == REDIS_REPLY_ERROR) {
      NEED(strcmp(r->str, "No more data") == 0);
      freeReplyObject(r);
      break;
    }
    NEED(r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[0]->len == 17);
    memcpy(cursor, r->element[0]->str, 17);
    for (size_t i = 0; i < r->element[1]->elements; ++i) {
      redisReply *item = r->element[1]->element[i];
      NEED(item->type == REDIS_REPLY_ARRAY && item->elements == 3 &&
           item->element[1]->type == REDIS_REPLY_INTEGER);
      ++seen;
    }
    freeReplyObject(r);
  }
  NEED(seen == 10002);
  r = redisCommand(c, "MGET p1 none p2");
  NEED(r && r->type == REDIS_REPLY_ARRAY && r->elements == 3 &&
       strcmp(r->element[0]->str, "v1") == 0 && r->element[1]->type == REDIS_REPLY_NIL);
  freeReplyObject(r);
  r = redisCommand(c, "GET");
  NEED(r && r->type == REDIS_REPLY_ERROR && strcmp(r->str, "Unexpected arguments") == 0);
  freeReplyObject(r);
  redisFree(c);
  puts("hiredis: all well");
  return 0;
}
