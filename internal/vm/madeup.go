package vm

import "math/rand/v2"

var (
	adjectives = []string{
		"amber", "bold", "brisk", "calm", "clever", "crisp", "eager", "early", "fair", "fleet",
		"fond", "gentle", "glad", "grand", "happy", "hardy", "jolly", "keen", "kind", "lively",
		"lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "plucky", "proud",
		"quick", "quiet", "ready", "royal", "sharp", "shiny", "silent", "smart", "snug", "solid",
		"spry", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "young",
	}
	animals = []string{
		"adder", "badger", "bat", "bear", "beaver", "bison", "crane", "crow", "deer", "dove",
		"eagle", "egret", "falcon", "ferret", "finch", "fox", "gecko", "goose", "hare", "hawk",
		"heron", "horse", "ibis", "jay", "koala", "lark", "lemur", "lion", "lynx", "marten",
		"mole", "moose", "newt", "orca", "otter", "owl", "panda", "puffin", "quail", "raven",
		"robin", "seal", "shrew", "stork", "swan", "tapir", "tiger", "toad", "wolf", "wren",
	}
)

// MadeUpName returns a name for a machine that was given none. It may be
// taken: the store says.
func MadeUpName() string {
	return adjectives[rand.IntN(len(adjectives))] + "-" + animals[rand.IntN(len(animals))]
}
