module opscenter/tools

go 1.24.2

require (
	helm.sh/helm/v3 v3.16.4
	oras.land/oras v1.2.3
)
