using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests.Testing;

/// <summary>A server that others wrote, listening on a Unix socket for one test.</summary>
internal sealed class BackgroundServer : IAsyncDisposable
{
    private readonly Process _process;
    private readonly Task<string> _errors;
    private readonly string? _numberFile;

    private BackgroundServer(Process process, string socket, string export, string? numberFile)
    {
        _process = process;
        _errors = process.StandardError.ReadToEndAsync();
        _numberFile = numberFile;
        SocketPath = socket;
        ExportName = export;
    }

    public string SocketPath { get; }

    public string ExportName { get; }

    public string Uri => $"nbd+unix:///{System.Uri.EscapeDataString(ExportName)}?socket={SocketPath}";

    public static Task<BackgroundServer> NbdkitAsync(ScratchDirectory folder, params string[] arguments)
        => StartAsync(folder["nbdkit.sock"], "", "nbdkit", ["-f", "--exit-with-parent", "-U", folder["nbdkit.sock"], .. arguments]);

    public static Task<BackgroundServer> QemuNbdAsync(ScratchDirectory folder, params string[] arguments)
        => StartAsync(folder["qemu.sock"], "", "qemu-nbd", ["-k", folder["qemu.sock"], "-t", "-e", "8", .. arguments]);

    public static Task<BackgroundServer> NbdServerAsync(ScratchDirectory folder, string file)
    {
        // It always listens on a port too.
        using var probe = new Socket(SocketType.Stream, ProtocolType.Tcp);
        probe.Bind(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        int port = ((IPEndPoint)probe.LocalEndPoint!).Port;
        probe.Close();
        File.WriteAllText(folder["nbd.conf"], $"""
            [generic]
                unixsock = {folder["nbd.sock"]}
                port = {port}
            [disk]
                exportname = {file}
                flush = true
                fua = true
                trim = true
            """);
        // In the foreground it would serve a single client: it leaves a process in the background, and its number in a file.
        return StartAsync(
            folder["nbd.sock"], "disk", "nbd-server", ["-C", folder["nbd.conf"], "-p", folder["nbd.pid"]], folder["nbd.pid"]);
    }

    /// <summary>Waits for it to end by itself.</summary>
    public Task EndAsync() => _process.WaitForExitAsync().WaitAsync(Peer.Deadline);

    public void Signal(int signal) => _ = NbdKit.Tool.NativeMethods.SendSignal(_process.Id, signal);

    public async ValueTask DisposeAsync()
    {
        using Process process = _numberFile is null
            ? _process
            : Process.GetProcessById(int.Parse(await File.ReadAllTextAsync(_numberFile), CultureInfo.InvariantCulture));
        process.Kill(entireProcessTree: true);
        await process.WaitForExitAsync().WaitAsync(Peer.Deadline);
        _process.Dispose();
    }

    private static async Task<BackgroundServer> StartAsync(string socket, string export, string program, string[] arguments, string? numberFile = null)
    {
        Peer.Require(program);
        string path = new[] { "/usr/bin", "/usr/sbin", "/bin", "/sbin" }
            .Select(folder => Path.Combine(folder, program)).First(File.Exists);
        var server = new BackgroundServer(
            Process.Start(new ProcessStartInfo(path, arguments) { RedirectStandardError = true })!, socket, export, numberFile);
        var waited = Stopwatch.StartNew();
        while (!await IsListeningAsync(socket))
        {
            if ((numberFile is null && server._process.HasExited) || waited.Elapsed > Peer.Deadline)
            {
                Assert.Fail($"{program} {string.Join(' ', arguments)} does not listen: {await server._errors}");
            }
            await Task.Delay(10);
        }
        return server;
    }

    private static async Task<bool> IsListeningAsync(string path)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path));
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
