using System.Globalization;
using Microsoft.Extensions.Logging;

namespace NbdKit.Filters;

/// <summary>
/// Logs every request: one line when it begins and one when it ends, to a file, a writer or a logger. Nearest the client it
/// shows what clients ask for, further down what the filters above made of it. Corresponds to nbdkit-log-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Each line has the time (UTC), the number of the connection (or, where there is none, of the context), the operation, and
/// for requests an id that counts up in each context and ties the two lines together:
/// </para>
/// <code>
/// 2026-01-02 03:04:05.000000 connection=1 Read id=1 offset=0x0 count=0x200 ...
/// 2026-01-02 03:04:05.000120 connection=1 ...Read id=1 return=0
/// 2026-01-02 03:04:05.000200 connection=1 ...Write id=2 return=-1 error=ENOSPC message="no space"
/// </code>
/// <para>
/// Besides requests it logs Ready, Start, Preconnect, ListExports, Open, Connect (with what the layer below can do),
/// Disconnect, Close and Cleanup. Names and messages are quoted, with everything but plain ASCII escaped, so that no client
/// can forge a line. Lines are whole, in the order in which they were written. A target that fails loses lines, never
/// requests; the first failure is reported to the log of the chain.
/// </para>
/// <para>nbdkit's <c>logscript</c> is not there: give it a <see cref="Logger"/> or a <see cref="Writer"/> instead.</para>
/// </remarks>
public sealed partial class LogFilter : INbdFilter, IDisposable
{
    private int _contexts;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "log",
        "logs requests to a file",
        [
            new NbdParameter("logfile", "the file to log to") { IsRequired = true },
            new NbdParameter("logappend", "whether to append to the file (yes) or to replace it (default no)"),
        ],
        p => new LogFilter { LogFile = p.Required("logfile"), Append = p.Boolean("logappend") ?? false });

    /// <summary>The path of a file to log to, opened when the chain starts, or null.</summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? LogFile
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrWhiteSpace(value);
            }
            field = value is null ? null : Path.GetFullPath(value);
        }
    }

    /// <summary>Whether lines are added to the end of <see cref="LogFile"/>. False by default: it is replaced.</summary>
    public bool Append { get; init; }

    /// <summary>
    /// A writer to log to, or null. It stays the caller's; it is used by one thread at a time, and flushed after each line.
    /// </summary>
    public TextWriter? Writer { get; init; }

    /// <summary>A logger to log to at level Information, without the time, or null.</summary>
    public ILogger? Logger { get; init; }

    /// <summary>The clock of the times in the log. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "log";

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">There is nothing to log to.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        OpenTargets();
        Write($"Ready thread_model={(int)model}");
        return default;
    }

    /// <inheritdoc/>
    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        _backend = backend;
        Write("Start");
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        string prefix = $"connection={connection.Id} ";
        Write($"{prefix}Preconnect readonly={Bit(readOnly)} peer={Quote(connection.Peer.ToString())} ...");
        try
        {
            await next.PreconnectAsync(connection, readOnly, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Write($"{prefix}...Preconnect {Failure(e)}");
            throw;
        }
        Write($"{prefix}...Preconnect return=0");
    }

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
    {
        string prefix = connection is null ? "" : $"connection={connection.Id} ";
        Write($"{prefix}ListExports readonly={Bit(readOnly)} tls={Bit(connection?.IsTls ?? false)} ...");
        int before = exports.Count;
        try
        {
            await next.ListExportsAsync(exports, readOnly, connection, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Write($"{prefix}...ListExports {Failure(e)}");
            throw;
        }
        string names = string.Join(", ", exports.Skip(before).Select(export => Quote(export.Name)));
        Write($"{prefix}...ListExports exports=[{names}] return=0");
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        int number = Interlocked.Increment(ref _contexts);
        string prefix = context.Connection is { } connection
            ? $"connection={connection.Id} "
            : string.Create(CultureInfo.InvariantCulture, $"context={number} ");
        Write($"{prefix}Open export={Quote(context.ExportName)} readonly={Bit(context.ReadOnly)} tls={Bit(context.IsTls)} ...");
        try
        {
            await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Write($"{prefix}...Open {Failure(e)}");
            throw;
        }
        Write($"{prefix}...Open return=0");
        return new LogHandle(this, prefix, context);
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        Write("Cleanup");
        return default;
    }
}
