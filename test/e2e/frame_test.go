//go:build e2e

package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// Frames as a guest makes them, good ones and bad ones.

const (
	typeIPv4, typeARP, typeVLAN, typeIPv6 = 0x0800, 0x0806, 0x8100, 0x86dd

	protoICMP, protoTCP, protoUDP = 1, 6, 17

	tcpSYN, tcpRST, tcpACK = 0x02, 0x04, 0x10
)

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func ether(dst, src net.HardwareAddr, typ uint16, payload []byte) []byte {
	f := slices.Concat(dst, src)
	f = binary.BigEndian.AppendUint16(f, typ)
	f = append(f, payload...)
	for len(f) < 60 {
		f = append(f, 0)
	}
	return f
}

// vlan puts a tag into a frame.
func vlan(f []byte, typ uint16) []byte {
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, typ), 5)
	return slices.Insert(slices.Clone(f), 12, tag...)
}

// arp is a request (op 1) or answer (2).
func arp(op uint16, senderMAC net.HardwareAddr, senderIP netip.Addr, targetMAC net.HardwareAddr, targetIP netip.Addr) []byte {
	p := binary.BigEndian.AppendUint16([]byte{0, 1, 8, 0, 6, 4}, op)
	return slices.Concat(p, senderMAC, senderIP.AsSlice(), targetMAC, targetIP.AsSlice())
}

func ipv4(proto byte, src, dst netip.Addr, payload []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	h = slices.Concat(h, src.AsSlice(), dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

// udp leaves its checksum out, which IPv4 allows.
func udp(sport, dport uint16, payload []byte) []byte {
	h := binary.BigEndian.AppendUint16(nil, sport)
	h = binary.BigEndian.AppendUint16(h, dport)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(payload)))
	return append(append(h, 0, 0), payload...)
}

func tcp(src, dst netip.Addr, sport, dport uint16, flags byte) []byte {
	h := binary.BigEndian.AppendUint16(nil, sport)
	h = binary.BigEndian.AppendUint16(h, dport)
	h = append(h, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, protoTCP, 0, byte(len(h))}, h)
	binary.BigEndian.PutUint16(h[16:], checksum(pseudo))
	return h
}

func echo(payload []byte) []byte {
	m := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, payload...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// A packet is what a frame was read as; what it has not is zero.
type packet struct {
	typ          uint16
	src, dst     netip.Addr
	proto        byte
	sport, dport uint16
	flags        byte // of TCP
	icmp, code   byte
	payload      []byte // of UDP and echoes
}

func parse(f []byte) (p packet) {
	if len(f) < 14 {
		return p
	}
	p.typ = binary.BigEndian.Uint16(f[12:])
	ip := f[14:]
	if p.typ != typeIPv4 || len(ip) < 20 {
		return p
	}
	p.src, _ = netip.AddrFromSlice(ip[12:16])
	p.dst, _ = netip.AddrFromSlice(ip[16:20])
	p.proto = ip[9]
	body := ip[min(len(ip), int(ip[0]&15)*4):min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))]
	if len(body) < 8 {
		return p
	}
	switch p.proto {
	case protoICMP:
		p.icmp, p.code, p.payload = body[0], body[1], body[8:]
	case protoTCP, protoUDP:
		p.sport, p.dport = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
		if p.proto == protoUDP {
			p.payload = body[8:]
		} else if len(body) >= 20 {
			p.flags = body[13]
		}
	}
	return p
}
