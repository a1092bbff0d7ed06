using System.Net;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Limits how much is read and written in a time, over all connections and on each of them. Corresponds to
/// nbdkit-rate-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Reads and writes are counted apart, each up to the rate. Everything else is free, also a zero or a prefetch that the layers
/// below carry out by writing or reading. A rate that is not used is saved up for <see cref="Burstiness"/>; at the start, and
/// when a client connects, nothing is saved up yet.
/// </para>
/// <para>
/// A request that has to wait is carried out in pieces of a tenth of a second, at boundaries of the blocks that the layer below
/// prefers. Connections that wait for the common rate get equal parts of it, however large their requests are and however many.
/// The rates may be changed at any time and from any thread; requests that wait go on at the new rate.
/// </para>
/// </remarks>
public sealed partial class RateFilter : INbdFilter
{
    // A piece of a request that waits lasts as long as this.
    private const int PiecesPerSecond = 10;
    private const int SmallestPiece = 4096;

    private readonly Lock _lock = new();
    private readonly HashSet<Handle> _handles = [];
    private readonly Dictionary<IPAddress, RateClient> _clients = [];
    private RateBucket? _reads;
    private RateBucket? _writes;
    private long _rate;
    private long _connectionRate;
    private TimeSpan _burstiness = TimeSpan.FromSeconds(2);

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "rate",
        "limits the rate of reads and writes",
        [
            new NbdParameter("rate", "bits a second over all connections, such as 10M (default: no limit)"),
            new NbdParameter("connection-rate", "bits a second on each connection (default: no limit)"),
            new NbdParameter("rate-per-address", "whether that is of all connections from one IP address together (default no)"),
            new NbdParameter("rate-file", "a file with the rate, looked at once a second"),
            new NbdParameter("connection-rate-file", "a file with the rate of each connection, looked at once a second"),
            new NbdParameter("burstiness", "how long an unused rate is saved up (default 2 seconds)"),
        ],
        Create);

    /// <summary>
    /// The bits a second that all connections together may read, and as many that they may write; 0, the default, for no limit.
    /// Safe to change from any thread at any time.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long Rate
    {
        get => Volatile.Read(ref _rate);
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            Change(() => _rate = value);
        }
    }

    /// <summary>
    /// The bits a second that each connection may read, and as many that it may write; 0, the default, for no limit. Safe to
    /// change from any thread at any time.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long ConnectionRate
    {
        get => Volatile.Read(ref _connectionRate);
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            Change(() => _connectionRate = value);
        }
    }

    /// <summary>
    /// Whether <see cref="ConnectionRate"/> is that of all connections from one IP address together, so that a client gains nothing by
    /// connecting often; they get equal parts of it. Connections over other sockets, and what the host opens, count each for itself.
    /// </summary>
    /// <value>False by default.</value>
    public bool PerAddress { get; init; }

    /// <summary>
    /// For how long a rate that is not used is saved up, from a millisecond to an hour. Two seconds by default. Safe to change
    /// from any thread at any time.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is too short or too long.</exception>
    public TimeSpan Burstiness
    {
        get
        {
            lock (_lock)
            {
                return _burstiness;
            }
        }

        set
        {
            if (value < TimeSpan.FromMilliseconds(1) || value > TimeSpan.FromHours(1))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(Burstiness), value, "Rates can be saved up for a millisecond to an hour.");
            }
            Change(() => _burstiness = value);
        }
    }

    /// <summary>
    /// The path of a file whose first line is the <see cref="Rate"/>, as <see cref="NbdParse.Size"/> reads it. Requests look
    /// at it, at most once a second; while it is missing or cannot be understood, the rate stays as it is. Null, the default, for
    /// none.
    /// </summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? RateFile { get; init => field = Checked(value); }

    /// <summary>The same as <see cref="RateFile"/>, for <see cref="ConnectionRate"/>.</summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? ConnectionRateFile { get; init => field = Checked(value); }

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "rate";

    /// <inheritdoc/>
    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            _reads = new RateBucket(TimeProvider, _rate, _burstiness);
            _writes = new RateBucket(TimeProvider, _rate, _burstiness);
        }
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            RateClient client = ClientOf(PerAddress ? RateClient.AddressOf(context.Connection) : null);
            client.Users++;
            var handle = new Handle(this, client, new RateLane(_reads!, client.Reads), new RateLane(_writes!, client.Writes));
            _handles.Add(handle);
            return handle;
        }
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            _reads?.Dispose();
            _writes?.Dispose();
        }
        return default;
    }

    private RateClient ClientOf(IPAddress? address)
    {
        if (address is null || !_clients.TryGetValue(address, out RateClient? client))
        {
            client = new RateClient(
                address, new RateBucket(TimeProvider, _connectionRate, _burstiness), new RateBucket(TimeProvider, _connectionRate, _burstiness));
            if (address is not null)
            {
                _clients.Add(address, client);
            }
        }
        return client;
    }

    private void Change(Action set)
    {
        lock (_lock)
        {
            set();
            _reads?.Change(_rate, _burstiness);
            _writes?.Change(_rate, _burstiness);
            foreach (Handle handle in _handles)
            {
                handle.Change(_connectionRate, _burstiness);
            }
        }
    }

    private void Forget(Handle handle, RateClient client)
    {
        lock (_lock)
        {
            _handles.Remove(handle);
            if (--client.Users == 0)
            {
                if (client.Address is { } address)
                {
                    _clients.Remove(address);
                }
                client.Dispose();
            }
        }
    }

    /// <summary>How much of what is left of a request is the next piece.</summary>
    private int NextPiece(in BlockSize blockSize, long offset, int left)
    {
        long rate = Math.Min(Rate == 0 ? long.MaxValue : Rate, ConnectionRate == 0 ? long.MaxValue : ConnectionRate);
        long unit = Math.Max(SmallestPiece, Math.Max(blockSize.Minimum, blockSize.Preferred));
        long units = Math.Max(rate / 8 / PiecesPerSecond / unit, 1);
        return units > left / unit ? left : (int)Math.Min(left, (units * unit) - (offset % unit));
    }

    private static string? Checked(string? path)
    {
        if (path is null)
        {
            return null;
        }
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        return Path.GetFullPath(path);
    }

    private static RateFilter Create(NbdParameters parameters) => new()
    {
        Rate = parameters.Size("rate") ?? 0,
        ConnectionRate = parameters.Size("connection-rate") ?? 0,
        PerAddress = parameters.Boolean("rate-per-address") ?? false,
        RateFile = parameters.Text("rate-file"),
        ConnectionRateFile = parameters.Text("connection-rate-file"),
        Burstiness = parameters.Delay("burstiness") ?? TimeSpan.FromSeconds(2),
    };
}
