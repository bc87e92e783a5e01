// A Go net/http server that calls the next service through the pooled default transport.
package main

import (
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "unsafe"
)

var (
	next         = os.Getenv("NEXT")
	answersAfter time.Duration
	client       = &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			MaxIdleConns:        64,
			MaxIdleConnsPerHost: 64,
		},
	}
)

// Called by net/http (transport.go, for its own tests) when a request is on its way to the connection, before its caller waits for the answer.
//
//go:linkname beforeWaiting net/http.testHookWaitResLoop
var beforeWaiting func()

// comesLate makes every other caller wait for the answer only when its request has been written, and answers later than that.
func comesLate() {
	beforeWaiting = func() {
		if rand.Intn(2) == 0 {
			time.Sleep(3 * time.Millisecond)
		}
	}
	answersAfter = 20 * time.Millisecond
}

// get fetches a URL and reads the body to its end, so that the connection goes back to the pool.
func get(url string) (int, []byte, error) {
	response, err := client.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

func last(r *http.Request) string {
	return r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
}

// forward answers with what the next service answers on path.
func forward(w http.ResponseWriter, path string) {
	status, body, err := get(next + path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(status)
	w.Write(body)
}

func main() {
	if os.Getenv("LATE") != "" {
		comesLate()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(answersAfter)
		fmt.Fprintf(w, "hello %s\n", last(r))
	})
	mux.HandleFunc("/status/", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(last(r))
		if err != nil {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/slow/", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(last(r))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprintln(w, "slow")
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, n)
	})
	mux.HandleFunc("/call/", func(w http.ResponseWriter, r *http.Request) {
		forward(w, "/hello/"+last(r))
	})
	mux.HandleFunc("/chain/", func(w http.ResponseWriter, r *http.Request) {
		forward(w, "/db/"+last(r))
	})
	// Three goroutines call at once: <n>, <n>+1000000, <n>+2000000.
	mux.HandleFunc("/fanout/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(last(r))
		var all sync.WaitGroup
		failed := make(chan error, 3)
		for i := 0; i < 3; i++ {
			i := i
			all.Add(1)
			go func() {
				defer all.Done()
				if _, _, err := get(fmt.Sprintf("%s/hello/%d", next, n+i*1000000)); err != nil {
					failed <- err
				}
			}()
		}
		all.Wait()
		select {
		case err := <-failed:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			fmt.Fprintf(w, "hello %d\n", n)
		}
	})
	log.Fatal(http.ListenAndServe(os.Getenv("HOST")+":"+os.Getenv("PORT"), mux))
}
