// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ACPI tables of a guest (ACPI Specification 6.3): no hardware but its CPUs,
 * and no way to find any other.
 */
#include <linux/acpi.h>
#include <linux/mm.h>
#include <asm/apicdef.h>
#include <asm/msr.h>

#include "internal.h"

/* One page. The MADT is last, as it grows. */
struct tables {
	struct acpi_table_rsdp rsdp;
	u8 pad[4];
	struct acpi_table_header xsdt;
	u64 entries[2];
	struct acpi_table_fadt fadt;
	struct acpi_table_header dsdt;
	struct acpi_table_madt madt;
	u8 madt_entries[];
} __packed;

static u8 mort_acpi_checksum(const void *data, size_t n)
{
	const u8 *p = data;
	u8 sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

static void mort_acpi_head(struct acpi_table_header *h, const char *signature, u8 revision,
			   u32 length)
{
	memcpy(h->signature, signature, ACPI_NAMESEG_SIZE);
	h->length = length;
	h->revision = revision;
	memcpy(h->oem_id, "TENON ", ACPI_OEM_ID_SIZE);
	memcpy(h->oem_table_id, "COKERNEL", ACPI_OEM_TABLE_ID_SIZE);
	memcpy(h->asl_compiler_id, "TENO", ACPI_NAMESEG_SIZE);
}

static void mort_acpi_seal(struct acpi_table_header *h)
{
	h->checksum = mort_acpi_checksum(h, h->length);
}

static void *mort_add_cpu_entry(void *at, u32 number, u32 apicid, bool enabled)
{
	struct acpi_madt_local_apic *e = at;

	e->header.type = ACPI_MADT_TYPE_LOCAL_APIC;
	e->header.length = sizeof(*e);
	e->processor_id = number;
	e->id = apicid;
	e->lapic_flags = enabled ? ACPI_MADT_ENABLED : ACPI_MADT_ONLINE_CAPABLE;
	return e + 1;
}

/* Whether a CPU of the host is one of the guest's now. */
static bool mort_has_cpu(const struct mortise *m, u32 cpu)
{
	u32 i;

	for (i = 0; i < m->cpu_count; i++)
		if (m->cpus[i] == cpu)
			return true;
	return false;
}

/*
 * The guest's CPUs, and then as many more as it can get: which these are is
 * said when it gets them, so that any ids do. An I/O APIC of one pin, in a page
 * of zeroes, keeps the guest from looking for the host's.
 */
static void *mort_add_madt_entries(struct mortise *m, void *at, phys_addr_t ioapic)
{
	struct acpi_madt_io_apic *io;
	u32 i, cpu, n = 0;

	for (i = 0; i < m->cpu_count; i++)
		if (!test_bit(i, m->idle))
			at = mort_add_cpu_entry(at, n++, mortise_cpu_apicid(m->cpus[i]), true);
	for_each_possible_cpu(cpu) {
		if (n < m->possible && !mort_has_cpu(m, cpu) && mortise_cpu_apicid(cpu) < 0xff)
			at = mort_add_cpu_entry(at, n++, mortise_cpu_apicid(cpu), false);
	}
	io = at;
	io->header.type = ACPI_MADT_TYPE_IO_APIC;
	io->header.length = sizeof(*io);
	io->address = ioapic;
	return io + 1;
}

/**
 * mortise_acpi() - writes the tables
 * @m: the instance, locked
 * @page: where to
 * @at: physical address of @page
 * @ioapic: physical address of a page of zeroes, below 4 GiB
 */
void mortise_acpi(struct mortise *m, void *page, phys_addr_t at, phys_addr_t ioapic)
{
	struct tables *t = page;
	u64 apic_base;
	void *end;

	BUILD_BUG_ON(sizeof(*t) + MORTISE_CPUS * sizeof(struct acpi_madt_local_apic) +
		     sizeof(struct acpi_madt_io_apic) > PAGE_SIZE);
	memset(page, 0, PAGE_SIZE);

	mort_acpi_head(&t->dsdt, ACPI_SIG_DSDT, 2, sizeof(t->dsdt));
	mort_acpi_seal(&t->dsdt);

	mort_acpi_head(&t->fadt.header, ACPI_SIG_FADT, 6, sizeof(t->fadt));
	t->fadt.minor_revision = 3;
	t->fadt.flags = ACPI_FADT_HW_REDUCED | ACPI_FADT_APIC_PHYSICAL | ACPI_FADT_WBINVD;
	t->fadt.boot_flags = ACPI_FADT_NO_VGA | ACPI_FADT_NO_CMOS_RTC | ACPI_FADT_NO_ASPM;
	t->fadt.Xdsdt = at + offsetof(struct tables, dsdt);
	mort_acpi_seal(&t->fadt.header);

	rdmsrl(MSR_IA32_APICBASE, apic_base);
	t->madt.address = apic_base & MSR_IA32_APICBASE_BASE;
	end = mort_add_madt_entries(m, t->madt_entries, ioapic);
	mort_acpi_head(&t->madt.header, ACPI_SIG_MADT, 5, end - (void *)&t->madt);
	mort_acpi_seal(&t->madt.header);

	t->entries[0] = at + offsetof(struct tables, fadt);
	t->entries[1] = at + offsetof(struct tables, madt);
	mort_acpi_head(&t->xsdt, ACPI_SIG_XSDT, 1, sizeof(t->xsdt) + sizeof(t->entries));
	mort_acpi_seal(&t->xsdt);

	memcpy(t->rsdp.signature, ACPI_SIG_RSDP, 8);
	memcpy(t->rsdp.oem_id, "TENON ", ACPI_OEM_ID_SIZE);
	t->rsdp.revision = 2;
	t->rsdp.length = sizeof(t->rsdp);
	t->rsdp.xsdt_physical_address = at + offsetof(struct tables, xsdt);
	t->rsdp.checksum = mort_acpi_checksum(&t->rsdp, 20);	/* of ACPI 1.0's part */
	t->rsdp.extended_checksum = mort_acpi_checksum(&t->rsdp, sizeof(t->rsdp));
}
