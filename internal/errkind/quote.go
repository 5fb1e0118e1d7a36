package errkind

import "strings"

// Quote writes s so that a shell takes it as one word, for a hint: as it is if
// it is plain, else in single quotes. What it returns holds no character that
// any shell expands. It does not keep a word that begins with "-" from being
// taken for an option.
func Quote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-=:,+@%"
	// zsh takes a word that begins with "=" for the path of a command.
	if s != "" && s[0] != '=' && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
