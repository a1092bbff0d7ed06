using NbdKit.Filters.Luks;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Serves the content of a disk that is encrypted with LUKS, version 1 or 2, for reading and writing
/// (nbdkit-luks-filter(1)). The passphrase stays here: the layer below sees only what is encrypted, and clients only what is
/// not.
/// </summary>
/// <remarks>
/// <para>
/// Ciphers are AES with XTS or CBC, with keys of any length and initialization vectors plain, plain64 or essiv; hashes are
/// md5, sha1, sha256, sha384 and sha512; passphrases are hashed with PBKDF2 or Argon2. What else there is (other ciphers,
/// dm-integrity, a disk that is being re-encrypted, a header on another disk) is refused with EINVAL and a message that names
/// it, a passphrase that is wrong with EPERM. The disk must have been made by another program, such as <c>cryptsetup
/// luksFormat</c> or <c>qemu-img create -f luks</c>; the header is never changed. nbdkit has version 1, without essiv.
/// </para>
/// <para>
/// Requests may have any alignment. One that covers a sector in part reads, decrypts, changes and writes back that sector,
/// while no other request of any connection of this chain touches it. Zeroes are written, as they have to be encrypted.
/// Trims pass if <see cref="Discard"/> or the header says so; what was trimmed reads as random bytes afterwards. Extents pass
/// without their promise of zeroes. FUA and flushes pass.
/// </para>
/// <para>
/// A passphrase takes seconds to check. That is done once for each export (with TLS and without), one at a time, and again
/// only if the header has changed. Keys are in memory that is wiped when the chain stops, apart from what the cryptography of
/// the framework keeps for itself as long as it is used.
/// </para>
/// </remarks>
public sealed partial class LuksFilter : INbdFilter, IDisposable
{
    // Shared by all exports, as several names may stand for the same bytes: at worst two requests wait in vain.
    private readonly RangeLock _locks = new();
    private readonly Secret _passphrase = null!;

    /// <summary>The filter in the catalogue.</summary>
    /// <remarks>Only <c>passphrase</c> is known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "luks",
        "decrypts and encrypts a LUKS disk",
        [
            new NbdParameter("passphrase", "the passphrase; - to be asked for it, +FILE or -FD for the first line of a file or file descriptor")
            {
                IsRequired = true,
            },
            new NbdParameter("luks-discard", "whether trims reach the disk (default: as its header says; never with version 1)"),
            new NbdParameter("luks-max-memory", "how much memory the header may ask for when the disk is opened (default 1G)"),
            new NbdParameter("luks-max-iterations", "how much work the header may ask for when the disk is opened (default 100000000)"),
        ],
        Create);

    /// <summary>
    /// The passphrase: the bytes that are hashed, usually UTF-8. Copied to memory that is wiped with the chain; wiping its own
    /// copy is the caller's business.
    /// </summary>
    public required ReadOnlyMemory<byte> Passphrase
    {
        init => _passphrase = new Secret(value.Span);
    }

    /// <summary>
    /// Whether trims reach the layer below, which tells everybody there what is in use. Null, the default, for what the header
    /// says (<c>cryptsetup --persistent --allow-discards</c>, only with version 2).
    /// </summary>
    public bool? Discard { get; init; }

    /// <summary>
    /// How many times PBKDF2 may hash, over all key slots together, to open a disk, or how long Argon2 may take (a kibibyte and pass
    /// counts as four): whoever made the header decides how much work that is. Key slots beyond are not tried.
    /// </summary>
    /// <value>100,000,000 by default, less than a minute; at least 1.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long MaxIterations
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            field = value;
        }
    } = 100_000_000;

    /// <summary>
    /// How many bytes of memory Argon2 may use to open a disk. Key slots that need more are not tried. Only one disk is opened at a
    /// time.
    /// </summary>
    /// <value>1 GiB by default, which is as much as cryptsetup uses; at least 0.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long MaxMemory
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    } = 1 << 30;

    /// <inheritdoc/>
    public string Name => "luks";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new LuksHandle(this, context, _locks);
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        ForgetAll();
        return default;
    }

    /// <summary>Wipes the passphrase. The chain does that when it stops.</summary>
    public void Dispose()
    {
        ForgetAll();
        _passphrase.Dispose();
        _opening.Dispose();
    }

    private static LuksFilter Create(NbdParameters parameters)
    {
        using Secret passphrase = PassphraseArgument.Read("passphrase", parameters.Required("passphrase"));
        return new LuksFilter
        {
            Passphrase = passphrase.Memory,
            Discard = parameters.Boolean("luks-discard"),
            MaxMemory = parameters.Size("luks-max-memory") ?? 1 << 30,
            MaxIterations = parameters.Size("luks-max-iterations") ?? 100_000_000,
        };
    }
}
