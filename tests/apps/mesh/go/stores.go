package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// PostgreSQL (PG) and Redis (REDIS), each behind a pool that has fewer connections than there are requests.
var stores = sync.OnceValue(func() struct {
	database *pgxpool.Pool
	cache    *redis.Client
} {
	config, err := pgxpool.ParseConfig(os.Getenv("PG"))
	if err != nil {
		panic(err)
	}
	config.MaxConns = 24
	database, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		panic(err)
	}
	options, err := redis.ParseURL(os.Getenv("REDIS"))
	if err != nil {
		panic(err)
	}
	options.PoolSize = 24
	return struct {
		database *pgxpool.Pool
		cache    *redis.Client
	}{database, redis.NewClient(options)}
})

// query names its column after the marker.
func query(marker string) error {
	seconds := strconv.FormatFloat(pause(marker, 0).Seconds(), 'f', 4, 64)
	_, err := stores().database.Exec(context.Background(), "SELECT pg_sleep("+seconds+") AS m_"+marker)
	return err
}

// lookUp asks for keys whose number and length tell the judge whose call it is.
func lookUp(marker string) error {
	code, _ := strconv.ParseUint(marker[:4], 16, 32)
	keys := []string{marker + strings.Repeat("x", int(code%4096))}
	for i := uint64(0); i < code/4096; i++ {
		keys = append(keys, "k")
	}
	return stores().cache.MGet(context.Background(), keys...).Err()
}

func init() {
	// A query and a look-up between calls.
	styles["stores"] = func(m string) error {
		return inOrder(
			func() error { return query(child(m, 2)) },
			func() error { return call(m, 0) },
			func() error { return lookUp(child(m, 3)) },
			func() error { return call(m, 1) })
	}
	// The same at once.
	styles["storespar"] = func(m string) error {
		return both(
			func() error { return query(child(m, 2)) },
			func() error { return call(m, 0) },
			func() error { return lookUp(child(m, 3)) },
			func() error { return call(m, 1) })
	}
}
