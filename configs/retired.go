package configs

import "strings"

// retired are the settings that BigchainDB's documents or its own files had
// and that mean nothing here, each with the line that says so; an empty line
// is not said. They are accepted from files and from the environment.
var retired = func() map[string]string {
	lines := map[string]string{
		"CONFIGURED":     "", // a marker that older versions wrote for themselves
		"api_endpoint":   "api_endpoint is ignored: links are made from each request's own address",
		"log.level_file": "log.level_file is ignored: the setting is log.level_logfile",
		"log.port":       "log.port is ignored: the node logs from one process",
	}
	for _, name := range strings.Fields("host port scheme advertised_scheme advertised_host advertised_port") {
		lines["wsserver."+name] = "wsserver.* is ignored: WebSocket streams are on server.bind"
	}
	for _, name := range strings.Fields("statsd.host statsd.port statsd.rate graphite.host") {
		lines[name] = "statsd.* and graphite.* are ignored: the node does not report to them"
	}
	// The documents pass whatever stands under server on to Gunicorn.
	for _, name := range strings.Fields(`accesslog access_log_format backlog ca_certs capture_output cert_reqs
		certfile chdir check_config ciphers config daemon default_proc_name disable_redirect_access_to_syslog
		do_handshake_on_connect enable_stdio_inheritance errorlog forwarded_allow_ips graceful_timeout group
		initgroups keepalive keyfile limit_request_field_size limit_request_fields limit_request_line
		logconfig logger_class max_requests max_requests_jitter paste pidfile preload_app proc_name
		proxy_allow_ips proxy_protocol pythonpath raw_env raw_paste_global_conf reload reload_engine
		reload_extra_files reuse_port secure_scheme_headers sendfile spew ssl_version statsd_host statsd_prefix
		strip_header_spaces suppress_ragged_eofs syslog syslog_addr syslog_facility syslog_prefix timeout
		tmp_upload_dir umask user worker_class worker_connections worker_tmp_dir`) {
		lines["server."+name] = "server." + name + " is ignored: it was Gunicorn's"
	}
	return lines
}()
