using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;

namespace NbdKit.Tool;

/// <summary>Serves a chain until it is asked to stop.</summary>
internal static class Serving
{
    /// <summary>Composes, starts and serves.</summary>
    /// <returns>The exit status.</returns>
    public static async Task<int> RunAsync(CommandOptions options, NbdCatalogue catalogue)
    {
        // First of all and before anything is awaited, while this is the main thread.
        using IDisposable? watch = options.ExitWithParent ? ParentWatch.Start() : null;
        using var signals = new SignalHandling();
        using var log = new LogFactory(options);
        using PrivateSocket? privateSocket =
            options.UnixSocket == CommandOptions.PrivateUnixSocket ? new PrivateSocket() : null;
        NbdBackend backend = catalogue.Compose(options.Plugin!, options.Filters, options.Parameters);
        try
        {
            NbdServerOptions serverOptions = ServerOptions(options, log) with
            {
                EndPoints = SocketActivation.IsActive(options)
                    ? []
                    : await Listening.EndPointsAsync(options, privateSocket, signals.Stop).ConfigureAwait(false),
            };
            // Apart from the server's own start, so that what fails there is known to be the listening.
            await backend.StartAsync(log, signals.Stop).ConfigureAwait(false);
            var server = new NbdServer(backend, serverOptions);
            await using ConfiguredAsyncDisposable ending = server.ConfigureAwait(false);
            await StartAsync(server, serverOptions, signals.Stop).ConfigureAwait(false);
            WritePidFile(options.PidFile);
            return await ServeAsync(server, options, serverOptions.Tls is not null, signals).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (signals.Stop.IsCancellationRequested)
        {
            return 0;
        }
        finally
        {
            await backend.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static NbdServerOptions ServerOptions(CommandOptions options, LogFactory log)
    {
        var defaults = new NbdServerOptions();
        return defaults with
        {
            ReadOnly = options.ReadOnly,
            ExportName = options.ExportName,
            Tls = TlsSetup.Load(options, log.CreateLogger(Command.ProgramName)),
            OfferFixedNewstyle = (options.HandshakeMask & 1) != 0,
            OfferNoZeroes = (options.HandshakeMask & 2) != 0,
            OfferStructuredReplies = options.StructuredReplies,
            OfferMetaContexts = options.MetaContexts,
            Oldstyle = options.Oldstyle,
            KeepAlive = options.KeepAlive ? new NbdKeepAlive() : null,
            HandshakeTimeout = options.HandshakeTimeout ?? defaults.HandshakeTimeout,
            MaxRequestsInFlight = options.Threads ?? defaults.MaxRequestsInFlight,
            LoggerFactory = log,
        };
    }

    private static async ValueTask StartAsync(
        NbdServer server, NbdServerOptions options, CancellationToken cancellationToken)
    {
        try
        {
            await server.StartAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (SocketException e)
        {
            throw new CommandException($"cannot listen on {string.Join(", ", options.EndPoints)}: {e.Message}", e);
        }
    }

    private static async Task<int> ServeAsync(
        NbdServer server, CommandOptions options, bool isTls, SignalHandling signals)
    {
        if (options.Single)
        {
            await StandardConnection.ServeAsync(server, signals.Stop).ConfigureAwait(false);
            return 0;
        }
        var uris = new List<string>();
        foreach (string uri in UrisOf(server, options))
        {
            string text = TlsSetup.Uri(uri, options);
            if (!uris.Contains(text))
            {
                uris.Add(text);
            }
        }
        if (options.Run is null || options.PrintUri)
        {
            await Console.OpenStandardOutput()
                .WriteAsync(StandardText.Bytes(string.Concat(uris.Select(uri => uri + "\n")))).ConfigureAwait(false);
        }
        Task stop = Task.Delay(Timeout.InfiniteTimeSpan, signals.Stop);
        if (options.Run is not null)
        {
            return await RunCaptiveAsync(server, options, uris[0], isTls, signals, stop).ConfigureAwait(false);
        }
        if (SocketActivation.IsActive(options))
        {
            SocketActivation.Accept(server, signals.Stop);
        }
        await Task.WhenAny(stop, server.Stopped).ConfigureAwait(false);
        await server.StopAsync(CancellationToken.None).ConfigureAwait(false);
        return 0;
    }

    // The port of a vsock may be one that Uri cannot hold.
    private static IEnumerable<string> UrisOf(NbdServer server, CommandOptions options)
        => server.EndPoints is [VsockEndPoint vsock]
            ? [new NbdUri
            {
                EndPoint = new VsockEndPoint(VsockEndPoint.LocalCid, vsock.Port),
                ExportName = options.ExportName,
                IsTls = options.Tls == TlsMode.Require,
            }.ToString()]
            : server.Uris.Select(uri => uri.AbsoluteUri);

    private static async Task<int> RunCaptiveAsync(
        NbdServer server, CommandOptions options, string uri, bool isTls, SignalHandling signals, Task stop)
    {
        EndPoint endPoint = server.EndPoints[0];
        using var command = CaptiveCommand.Start(
            options.Run!,
            uri,
            (endPoint as UnixDomainSocketEndPoint)?.ToString(),
            endPoint switch
            {
                IPEndPoint ip => ip.Port,
                VsockEndPoint vsock => vsock.Port,
                _ => null,
            },
            options.ExportName,
            isTls ? options.Tls ?? TlsMode.On : TlsMode.Off,
            options.TlsCertificates);
        Task<int> end = command.WaitAsync();
        await Task.WhenAny(end, stop, server.Stopped).ConfigureAwait(false);
        if (signals.IsForThisProcess)
        {
            command.Terminate();
        }
        await server.StopAsync(CancellationToken.None).ConfigureAwait(false);
        return await end.ConfigureAwait(false);
    }

    private static void WritePidFile(string? path)
    {
        if (path is null)
        {
            return;
        }
        try
        {
            File.WriteAllBytes(path, StandardText.Bytes($"{Environment.ProcessId}\n"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"cannot write the process id: {e.Message}", e);
        }
    }
}
