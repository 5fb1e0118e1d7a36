package firecracker

// The messages of Firecracker's API, as far as the driver uses them or may come
// to, field by field as in src/firecracker/swagger/firecracker.yaml of its
// release 1.12. What is left out has the default.

// instanceInfo is the answer to GET /.
type instanceInfo struct {
	AppName    string        `json:"app_name"`
	ID         string        `json:"id"`
	State      instanceState `json:"state"`
	VMMVersion string        `json:"vmm_version"`
}

type instanceState string

const (
	stateNotStarted instanceState = "Not started"
	stateRunning    instanceState = "Running"
	statePaused     instanceState = "Paused"
)

// firecrackerVersion is the answer to GET /version.
type firecrackerVersion struct {
	Version string `json:"firecracker_version"`
}

// vmConfig is the answer to GET /vm/config, as far as it is ours.
type vmConfig struct {
	BootSource bootSource         `json:"boot-source"`
	Drives     []drive            `json:"drives"`
	Machine    machineConfig      `json:"machine-config"`
	Metrics    *metricsConfig     `json:"metrics"`
	Logger     *loggerConfig      `json:"logger"`
	NICs       []networkInterface `json:"network-interfaces"`
	Vsock      *vsockDevice       `json:"vsock"`
	Entropy    *entropyDevice     `json:"entropy"`
}

type machineConfig struct {
	VCPUs           int    `json:"vcpu_count"` // 1 to 32
	MemoryMiB       int64  `json:"mem_size_mib"`
	SMT             bool   `json:"smt"`
	TrackDirtyPages bool   `json:"track_dirty_pages"`
	HugePages       string `json:"huge_pages,omitempty"` // "None" or "2M"
}

type bootSource struct {
	Kernel string `json:"kernel_image_path"`
	Initrd string `json:"initrd_path,omitempty"`
	Args   string `json:"boot_args,omitempty"`
}

type drive struct {
	ID       string    `json:"drive_id"`
	Path     string    `json:"path_on_host"`
	Root     bool      `json:"is_root_device"`
	ReadOnly bool      `json:"is_read_only"`
	Cache    cacheType `json:"cache_type,omitempty"`
	IOEngine ioEngine  `json:"io_engine,omitempty"`
}

// driveChange is what PATCH /drives asks for.
type driveChange struct {
	ID   string `json:"drive_id"`
	Path string `json:"path_on_host"`
}

type cacheType string

const (
	cacheUnsafe    cacheType = "Unsafe"    // a guest's flush is acknowledged and ignored
	cacheWriteback cacheType = "Writeback" // a guest's flush is honoured
)

type ioEngine string // "Sync", the default, or "Async"

type networkInterface struct {
	ID  string `json:"iface_id"`
	Tap string `json:"host_dev_name"`
	MAC string `json:"guest_mac,omitempty"`
}

type vsockDevice struct {
	CID  uint32 `json:"guest_cid"` // 3 and up
	Path string `json:"uds_path"`
}

// entropyDevice has a rate limiter alone, which is not used.
type entropyDevice struct{}

type metricsConfig struct {
	Path string `json:"metrics_path"` // a file that is there
}

type loggerConfig struct {
	Path      string `json:"log_path,omitempty"` // a file that is there
	Level     string `json:"level,omitempty"`
	ShowLevel bool   `json:"show_level,omitempty"`
	ShowFrom  bool   `json:"show_log_origin,omitempty"`
	Module    string `json:"module,omitempty"`
}

type action struct {
	Type actionType `json:"action_type"`
}

type actionType string

const (
	actionStart        actionType = "InstanceStart"
	actionFlushMetrics actionType = "FlushMetrics"
)

// vmState is what PATCH /vm asks for.
type vmState struct {
	State string `json:"state"` // "Paused" or "Resumed"
}

type snapshotType string

const (
	snapshotFull snapshotType = "Full"
	snapshotDiff snapshotType = "Diff" // needs machineConfig.TrackDirtyPages
)

type snapshotCreate struct {
	Type   snapshotType `json:"snapshot_type,omitempty"` // empty: full
	State  string       `json:"snapshot_path"`
	Memory string       `json:"mem_file_path"`
}

type snapshotLoad struct {
	State     string            `json:"snapshot_path"`
	Memory    memoryBackend     `json:"mem_backend"`
	Diff      bool              `json:"enable_diff_snapshots,omitempty"`
	Resume    bool              `json:"resume_vm,omitempty"`
	Overrides []networkOverride `json:"network_overrides,omitempty"` // since 1.12
}

type memoryBackend struct {
	Type memoryBackendType `json:"backend_type"`
	Path string            `json:"backend_path"`
}

type memoryBackendType string

const (
	memoryFile memoryBackendType = "File" // mapped privately
	memoryUffd memoryBackendType = "Uffd" // a socket of who serves page faults
)

type networkOverride struct {
	ID  string `json:"iface_id"`
	Tap string `json:"host_dev_name"`
}

// fault is the answer to what Firecracker refuses.
type fault struct {
	Message string `json:"fault_message"`
}
