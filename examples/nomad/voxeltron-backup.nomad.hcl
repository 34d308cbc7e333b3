# Runs what is due, every minute, on whatever client has room. The state is in the bucket (`state` in [backup]), so nothing has to
# outlive an allocation, and runs that overlap, in several datacenters too, publish each slot once.
#
#   nomad var put nomad/jobs/voxeltron-backup config=@config.toml backup_key=@backup.key s3_secret=@s3.secret
#   nomad job run voxeltron-backup.nomad.hcl
#
# In config.toml:
#   [backup]
#   instance = "shop-production"
#   state = "s3"
#   data_dir = "/alloc/data"
#   encryption_key = { file = "/secrets/backup.key" }
#   [backup.targets.s3]
#   secret_key = { file = "/secrets/s3.secret" }
job "voxeltron-backup" {
  type = "batch"

  periodic {
    crons            = ["* * * * *"]
    # A tick that meets a long job passes it by, and runs the others.
    prohibit_overlap = false
  }

  group "tick" {
    # The next tick tries again, by the job's own rules.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "schedule-check" {
      # Or "docker", with an image that has the program and the databases' client tools.
      driver = "exec"
      config {
        command = "/usr/local/bin/voxeltron-backup"
        args    = ["--config", "${NOMAD_SECRETS_DIR}/config.toml", "schedule-check"]
      }
      # What is stopped ends within a second; its lease is given up.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      template {
        data        = "{{ with nomadVar \"nomad/jobs/voxeltron-backup\" }}{{ .config }}{{ end }}"
        destination = "${NOMAD_SECRETS_DIR}/config.toml"
        perms       = "0600"
      }
      template {
        data        = "{{ with nomadVar \"nomad/jobs/voxeltron-backup\" }}{{ .backup_key }}{{ end }}"
        destination = "${NOMAD_SECRETS_DIR}/backup.key"
        perms       = "0600"
      }
      template {
        data        = "{{ with nomadVar \"nomad/jobs/voxeltron-backup\" }}{{ .s3_secret }}{{ end }}"
        destination = "${NOMAD_SECRETS_DIR}/s3.secret"
        perms       = "0600"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
