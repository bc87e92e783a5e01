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
	jobs    = make(chan job)
	orders  = make(chan *order)
	tasks   = make(chan func(), 64)
	urgent  = make(chan job)
	other   = make(chan job)
	parcels = make(chan parcel)
	replies = make(chan reply, 64)
	// By marker.
	senders sync.Map
	workers = 16
)

type job struct {
	marker string
	call   int
	done   chan error
}

// order has room for its outcome; somebody waits for a whole batch of them.
type order struct {
	marker string
	call   int
	failed error
	batch  *sync.WaitGroup
	done   chan *order
}

// parcel has nothing of its sender but the marker.
type parcel struct {
	marker string
	call   int
	out    chan reply
}

type reply struct {
	marker string
	failed error
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

func clerk() {
	for order := range orders {
		order.failed = call(order.marker, order.call)
		if order.batch != nil {
			order.batch.Done()
		} else {
			order.done <- order
		}
	}
}

// A porter's frame has a job of either queue, of which one is done.
func porter() {
	for {
		select {
		case job := <-urgent:
			job.done <- call(job.marker, job.call)
		case job := <-other:
			job.done <- call(job.marker, job.call)
		}
	}
}

func anything() {
	for task := range tasks {
		task()
	}
}

// channels are used again by other requests.
var channels = sync.Pool{New: func() any { return make(chan error, 1) }}

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
	// Each job has a channel of its own for its reply.
	"each": func(m string) error {
		one, two := make(chan error, 1), make(chan error, 1)
		jobs <- job{m, 0, one}
		jobs <- job{m, 1, two}
		return inOrder(func() error { return <-one }, func() error { return <-two })
	},
	// The same, but replies are awaited one by one, over a channel that other requests have used before.
	"again": func(m string) error {
		done := channels.Get().(chan error)
		defer channels.Put(done)
		return inOrder(
			func() error { jobs <- job{m, 0, done}; return <-done },
			func() error { jobs <- job{m, 1, done}; return <-done })
	},
	// Pointers to jobs, all of which send themselves back over a channel without room.
	"orders": func(m string) error {
		done := make(chan *order)
		for i := 0; i < 2; i++ {
			go func() { orders <- &order{marker: m, call: i, done: done} }()
		}
		return inOrder(func() error { return (<-done).failed }, func() error { return (<-done).failed })
	},
	// Pointers to jobs, for whose end a WaitGroup waits.
	"batch": func(m string) error {
		var batch sync.WaitGroup
		all := [2]order{{marker: m, call: 0, batch: &batch}, {marker: m, call: 1, batch: &batch}}
		for i := range all {
			batch.Add(1)
			orders <- &all[i]
		}
		batch.Wait()
		return inOrder(func() error { return all[0].failed }, func() error { return all[1].failed })
	},
	// Workers with two queues.
	"queues": func(m string) error {
		done := make(chan error, 2)
		urgent <- job{m, 0, done}
		other <- job{m, 1, done}
		return inOrder(func() error { return <-done }, func() error { return <-done })
	},
	// Functions as jobs, behind a queue with some room.
	"tasks": func(m string) error {
		var wait sync.WaitGroup
		var failed [2]error
		for i := 0; i < 2; i++ {
			wait.Add(1)
			tasks <- func() {
				defer wait.Done()
				failed[i] = call(m, i)
			}
		}
		wait.Wait()
		return inOrder(func() error { return failed[0] }, func() error { return failed[1] })
	},
	// All jobs have one channel for their replies, from which one goroutine gives them to whoever waits.
	"routed": func(m string) error {
		mine := make(chan error, 2)
		senders.Store(m, mine)
		defer senders.Delete(m)
		parcels <- parcel{m, 0, replies}
		parcels <- parcel{m, 1, replies}
		return inOrder(func() error { return <-mine }, func() error { return <-mine })
	},
	// No more than two goroutines at once.
	"limit": func(m string) error {
		var group errgroup.Group
		group.SetLimit(2)
		for i := 0; i < 4; i++ {
			group.Go(func() error { return call(m, i) })
		}
		return group.Wait()
	},
	// The same in goroutines that serve nothing: while they wait for room, nobody waits for the calls.
	"within": func(m string) error {
		half := func(first int) func() error {
			return func() error {
				var group errgroup.Group
				group.SetLimit(1)
				for i := first; i < first+2; i++ {
					group.Go(func() error { return call(m, i) })
				}
				return group.Wait()
			}
		}
		return both(half(0), half(2))
	},
}

func courier() {
	for parcel := range parcels {
		work(parcel.marker)
		parcel.out <- reply{parcel.marker, call(parcel.marker, parcel.call)}
	}
}

// router gives each reply to whoever it is for, and is busy with that for a while.
func router() {
	for reply := range replies {
		work(reply.marker)
		sender, _ := senders.Load(reply.marker)
		sender.(chan error) <- reply.failed
	}
}

func main() {
	go router()
	for i := 0; i < workers; i++ {
		go worker()
		go clerk()
		go porter()
		go anything()
		go courier()
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
