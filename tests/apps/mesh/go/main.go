// Go net/http with the pooled client: the service under test, and the services that all others call.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	key    = os.Getenv("MARKER_KEY")
	bases  = [2]string{os.Getenv("A") + "/leaf/", os.Getenv("B") + "/branch/"}
	client = &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 512},
	}
	jobs = make(chan job)
)

type job struct {
	marker string
	call   int
	done   chan error
}

func child(marker string, call int) string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%s/%s/%d", key, marker, call)))
	return hex.EncodeToString(sum[:8])
}

// pause lasts up to seven milliseconds, by a digit of the marker.
func pause(marker string, digit int) time.Duration {
	n, _ := strconv.ParseUint(marker[digit:digit+1], 16, 8)
	return time.Duration(n/2) * time.Millisecond
}

// get fetches a URL and reads the body to its end, so that the connection goes back to the pool.
func get(url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func call(marker string, i int) error {
	return get(bases[i%2] + child(marker, i))
}

// both runs all at once and returns one of the errors.
func both(all ...func() error) error {
	var wait sync.WaitGroup
	failed := make(chan error, len(all))
	for _, one := range all {
		wait.Add(1)
		go func(one func() error) {
			defer wait.Done()
			failed <- one()
		}(one)
	}
	wait.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

func inOrder(all ...func() error) error {
	for _, one := range all {
		if err := one(); err != nil {
			return err
		}
	}
	return nil
}

func work(marker string) {
	sum := []byte(marker)
	for i := 0; i < 2000; i++ {
		next := sha256.Sum256(sum)
		sum = next[:]
	}
}

func worker() {
	for job := range jobs {
		job.done <- call(job.marker, job.call)
	}
}

var styles = map[string]func(m string) error{
	"leaf": func(m string) error {
		time.Sleep(pause(m, 0))
		return nil
	},
	"branch": func(m string) error { return get(bases[0] + child(m, 0)) },
	"seq": func(m string) error {
		return inOrder(
			func() error { return call(m, 0) },
			func() error { return call(m, 1) },
			func() error { return call(m, 2) })
	},
	"par": func(m string) error {
		return both(
			func() error { return call(m, 0) },
			func() error { return call(m, 1) },
			func() error { return call(m, 2) })
	},
	"sleep": func(m string) error {
		return inOrder(
			func() error { time.Sleep(pause(m, 1)); return call(m, 0) },
			func() error { time.Sleep(pause(m, 2)); return call(m, 1) })
	},
	"cpu": func(m string) error {
		return inOrder(
			func() error { work(m); return call(m, 0) },
			func() error { work(m); return call(m, 1) })
	},
	"nested": func(m string) error {
		return both(
			func() error {
				return inOrder(func() error { return call(m, 0) }, func() error { return call(m, 1) })
			},
			func() error {
				return both(func() error { return call(m, 2) }, func() error { return call(m, 3) })
			})
	},
	"errgroup": func(m string) error {
		var group errgroup.Group
		for i := 0; i < 3; i++ {
			group.Go(func() error { return call(m, i) })
		}
		return group.Wait()
	},
	// A goroutine that makes others, which make others.
	"deep": func(m string) error {
		return both(func() error {
			return both(func() error {
				return both(func() error { return call(m, 0) }, func() error { return call(m, 1) })
			})
		})
	},
	// Each call is a goroutine whose result comes over a channel.
	"channel": func(m string) error {
		results := make(chan error)
		for i := 0; i < 3; i++ {
			go func() { results <- call(m, i) }()
		}
		return inOrder(
			func() error { return <-results },
			func() error { return <-results },
			func() error { return <-results })
	},
	// A fixed pool of goroutines makes the calls.
	"pool": func(m string) error {
		done := make(chan error, 2)
		jobs <- job{m, 0, done}
		jobs <- job{m, 1, done}
		return inOrder(func() error { return <-done }, func() error { return <-done })
	},
}

func main() {
	for i := 0; i < 16; i++ {
		go worker()
	}
	for style, run := range styles {
		prefix := "/" + style + "/"
		run := run
		http.HandleFunc(prefix, func(w http.ResponseWriter, r *http.Request) {
			if err := run(strings.TrimPrefix(r.URL.Path, prefix)); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	log.Fatal(http.ListenAndServe("0.0.0.0:"+os.Getenv("PORT"), nil))
}
