// SPDX-License-Identifier: GPL-2.0-only
/* Whether an image may run: all of the trust in this module is here. */
#include <linux/kernel.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/verification.h>
#include <crypto/hash.h>

#include "internal.h"

#define TARGET "cokernel"

/* What is signed; see package signer/statement. Numbers are little endian. */
struct statement {
	char magic[8];
	__le32 version;
	__le32 sealed;
	char target[16];
	__le64 size;
	u8 digest[32];
} __packed;
static_assert(sizeof(struct statement) == 72);

/* SHA-256, with pauses, as images may be large. */
static int mort_sha256(const u8 *data, size_t size, u8 *out)
{
	struct crypto_shash *tfm = crypto_alloc_shash("sha256", 0, 0);
	struct shash_desc *desc;
	int ret = 0;

	if (IS_ERR(tfm))
		return PTR_ERR(tfm);
	desc = kzalloc(sizeof(*desc) + crypto_shash_descsize(tfm), GFP_KERNEL);
	if (!desc) {
		ret = -ENOMEM;
		goto out_tfm;
	}
	desc->tfm = tfm;
	ret = crypto_shash_init(desc);
	while (!ret && size) {
		unsigned int n = min_t(size_t, size, SZ_1M);

		ret = crypto_shash_update(desc, data, n);
		data += n;
		size -= n;
		cond_resched();
	}
	if (!ret)
		ret = crypto_shash_final(desc, out);
	kfree(desc);
out_tfm:
	crypto_free_shash(tfm);
	return ret;
}

/* Of an image without a signature. */
static int mort_take_unsigned(void)
{
	if (security_locked_down(LOCKDOWN_KEXEC)) {
		pr_notice("refused an image without a signature: the kernel is locked down\n");
		return -EPERM;
	}
	if (!mortise_unsigned_allowed()) {
		pr_notice("refused an image without a signature: the module's parameter allow_unsigned is not set\n");
		return -EPERM;
	}
	pr_warn("runs an image without a signature, as the module's parameter allow_unsigned says\n");
	add_taint(TAINT_USER, LOCKDEP_STILL_OK);
	return 0;
}

/**
 * mortise_verify() - says whether an image may run
 * @image: the bzImage, where nobody else can write to any more
 * @size: in bytes
 * @sealed: it holds its command line, and takes no initramfs but its own
 * @statement: PKCS#7 signature of its statement
 * @statement_size: in bytes; 0: there is none
 *
 * The statement is made here, from what is seen: one that was signed for another
 * image, another target, or a detached image as if it was sealed, does not fit.
 *
 * Return: 0, -EPERM when lockdown or policy refuse, what
 * verify_pkcs7_signature() says (-ENOKEY, -EKEYREJECTED, -EBADMSG, -ENOPKG,
 * -EKEYREVOKED ...), -ENOMEM, -EFAULT.
 */
int mortise_verify(const void *image, size_t size, bool sealed,
		   const void __user *statement, u32 statement_size)
{
	struct statement s = {
		.magic = { 'T', 'E', 'N', 'O', 'N', 'S', 'T', 'M' },
		.version = cpu_to_le32(1),
		.sealed = cpu_to_le32(sealed),
		.target = TARGET,
		.size = cpu_to_le64(size),
	};
	void *p7;
	int ret;

	if (!statement_size)
		return mort_take_unsigned();
	if (!sealed && security_locked_down(LOCKDOWN_KEXEC)) {
		pr_notice("refused a detached image: the kernel is locked down\n");
		return -EPERM;
	}
	if (statement_size > MORTISE_STATEMENT)
		return -EMSGSIZE;
	p7 = memdup_user(statement, statement_size);
	if (IS_ERR(p7))
		return PTR_ERR(p7);
	ret = mort_sha256(image, size, s.digest);
	if (ret)
		goto out;
	ret = verify_pkcs7_signature(&s, sizeof(s), p7, statement_size,
				     VERIFY_USE_SECONDARY_KEYRING,
				     VERIFYING_UNSPECIFIED_SIGNATURE, NULL, NULL);
	if (ret == -ENOKEY)
		ret = verify_pkcs7_signature(&s, sizeof(s), p7, statement_size,
					     VERIFY_USE_PLATFORM_KEYRING,
					     VERIFYING_UNSPECIFIED_SIGNATURE, NULL, NULL);
	if (ret)
		pr_notice("refused an image: its statement does not verify: %d\n", ret);
out:
	kfree(p7);
	return ret;
}
