using NbdKit.Plugins.Powercut;

namespace NbdKit.Plugins;

// Cutting the power, by the host and by a file.
public sealed partial class PowercutPlugin
{
    private PowercutDisk Disk => _disk ?? throw new InvalidOperationException("powercut: the plugin is not running.");

    /// <summary>
    /// Draws what a power cut at this moment would leave. The plugin goes on as if nothing had happened, so that one
    /// history gives any number of images.
    /// </summary>
    /// <remarks>
    /// Waits for a flush or a request with FUA that is being carried out; one that waits itself is pending. Must not be called
    /// from within a request that the plugin makes of its chain, which would wait for itself.
    /// </remarks>
    /// <param name="seed">Decides what is lost; the same over the same history leaves the same.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The image; dispose of it when it is no more wanted.</returns>
    /// <exception cref="InvalidOperationException">The plugin is not running.</exception>
    public ValueTask<PowercutImage> CutAsync(int seed, CancellationToken cancellationToken = default)
        => Disk.CutAsync(seed, cancellationToken);

    /// <summary>
    /// Goes on from an image: it becomes the content of the chain, nothing is pending, and requests of contexts that were
    /// opened before fail with ESHUTDOWN. The image stays as it is.
    /// </summary>
    /// <param name="image">One of this plugin, of whatever time.</param>
    /// <param name="cancellationToken">
    /// Gives up. The chain is partly the image then, and nothing else has changed; the reboot may be tried again.
    /// </param>
    /// <exception cref="InvalidOperationException">
    /// The plugin is not running, or the image is disposed of or of another plugin.
    /// </exception>
    /// <exception cref="NbdException">The chain failed; the same holds as when the caller gives up.</exception>
    public ValueTask RebootAsync(PowercutImage image, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(image);
        return Disk.RebootAsync(image, cancellationToken);
    }

    /// <summary>Cuts the power and goes on from what is left, with no request between.</summary>
    /// <param name="seed">Decides what is lost.</param>
    /// <param name="cancellationToken">Gives up; see <see cref="RebootAsync(PowercutImage, CancellationToken)"/>.</param>
    /// <exception cref="InvalidOperationException">The plugin is not running.</exception>
    /// <exception cref="NbdException">The chain failed.</exception>
    public ValueTask RebootAsync(int seed, CancellationToken cancellationToken = default)
        => Disk.RebootAsync(seed, cancellationToken);

    /// <summary>Cuts the power if the file has appeared that says so, and waits for a cut that is under way.</summary>
    internal ValueTask WatchAsync() => CutFile is null ? default : CutIfToldAsync(CutFile);

    private async ValueTask CutIfToldAsync(string file)
    {
        Task? cut;
        lock (_watch)
        {
            bool exists = File.Exists(file);
            if (exists && !_cutFileSeen)
            {
                _cut = cut = Task.Run(CutByFileAsync);
            }
            else
            {
                // One that failed was told to who began it.
                cut = _cut is { IsCompleted: false } ? _cut : null;
            }
            _cutFileSeen = exists;
        }
        if (cut is not null)
        {
            await cut.ConfigureAwait(false);
        }
    }

    private async Task CutByFileAsync()
    {
        int seed = Seed is { } first ? unchecked(first + _cuts++) : Random.Shared.Next();
        PowercutLog.PowerCut(_chains.Holder.Logger, seed, Pending);
        await Disk.RebootAsync(seed, CancellationToken.None).ConfigureAwait(false);
    }

    private static PowercutPlugin Create(NbdParameters parameters)
    {
        long sector = parameters.Size("sector") ?? 512;
        return new PowercutPlugin
        {
            Chain = NbdBackend.Compose(new FilePlugin { Path = parameters.Required("file") }),
            CutFile = parameters.Text("cutfile"),
            Seed = parameters.Integer("seed"),
            MaxPending = parameters.Size("maxpending") ?? 1 << 30,
            SectorSize = (int)Math.Clamp(sector, 0, int.MaxValue),
            IsMultiConn = parameters.Boolean("multiconn") ?? true,
        };
    }
}
