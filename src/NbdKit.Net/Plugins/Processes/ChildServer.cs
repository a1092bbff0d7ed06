using System.Net.Sockets;
using NbdKit.Native;

namespace NbdKit.Plugins.Processes;

/// <summary>
/// An NBD server that is run as a child: it gets a socket that listens already, as systemd would give it one (descriptor 3,
/// <c>LISTEN_FDS</c>, <c>LISTEN_PID</c>), or a connected one as its standard input and output. One that has ended is started
/// again when somebody connects.
/// </summary>
/// <param name="command">The program and its arguments.</param>
/// <param name="onStandardStreams">Whether it serves one client, on its standard streams.</param>
internal sealed class ChildServer(IReadOnlyList<string> command, bool onStandardStreams) : IAsyncDisposable
{
    // LISTEN_PID is only known once there is a process, which becomes the server. The arguments are not part of the text.
    private const string Activation = "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";

    private static readonly TimeSpan LongestGoodbye = TimeSpan.FromSeconds(5);

    private readonly SemaphoreSlim _one = new(1);
    private ChildProcess? _child;
    private ChildOutput _errors = ChildOutput.FirstOf(0);
    private Task _listening = Task.CompletedTask;
    private string? _folder;

    /// <summary>Connects to the server, after starting it if it does not run.</summary>
    /// <param name="options">What to ask it for.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdClientException">It cannot be started, or ended at once, or refused.</exception>
    public async Task<NbdClient> ConnectAsync(NbdClientOptions options, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        Socket? socket = null;
        await _one.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_child is null || onStandardStreams || _child.Ended.IsCompleted)
            {
                await EndAsync().ConfigureAwait(false);
                socket = await StartAsync().ConfigureAwait(false);
            }
            socket ??= Connect();
        }
        catch (Exception e) when (e is NbdException or IOException or SocketException)
        {
            throw await FailedAsync(e).ConfigureAwait(false);
        }
        finally
        {
            _one.Release();
        }
        try
        {
            return await NbdClient.ConnectAsync(socket, options, cancellationToken).ConfigureAwait(false);
        }
        catch (NbdClientException e) when (e.Error == NbdClientError.ConnectionLost)
        {
            throw await FailedAsync(e).ConfigureAwait(false);
        }
    }

    /// <summary>Asks the server to end, and sees to it that it does.</summary>
    public async ValueTask DisposeAsync()
    {
        await _one.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            if (_child is not null && !onStandardStreams)
            {
                _child.Signal(LinuxProcess.TerminateSignal);
            }
            if (_child is not null)
            {
                await Task.WhenAny(_child.Ended, Task.Delay(LongestGoodbye)).ConfigureAwait(false);
            }
            await EndAsync().ConfigureAwait(false);
        }
        finally
        {
            _one.Release();
        }
    }

    private string SocketPath => Path.Join(_folder, "socket");

    /// <summary>
    /// Starts the server from a thread that lasts as long as it does: the kernel takes the end of that thread for the end of its parent,
    /// and servers can be told to end with their parents.
    /// </summary>
    private Task<Socket> StartAsync()
    {
        var started = new TaskCompletionSource<Socket>(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            Task ended;
            try
            {
                Socket socket = Start();
                ended = _child!.Ended;
                started.SetResult(socket);
            }
            catch (Exception e)
            {
                started.SetException(e);
                return;
            }
            ended.Wait();
        })
        {
            IsBackground = true,
            Name = "nbd command",
        };
        thread.Start();
        return started.Task;
    }

    private Socket Start()
    {
        _folder = Directory.CreateTempSubdirectory("nbdkit").FullName;
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(SocketPath));
        listener.Listen();
        using FileStream nothing = File.OpenWrite("/dev/null");
        Socket? connected = onStandardStreams ? Connect() : null;
        try
        {
            using Socket? other = onStandardStreams ? listener.Accept() : null;
            ChildCommand child = other is not null
                ? new ChildCommand(command[0], [.. command.Skip(1)]) { StandardInput = other.SafeHandle, StandardOutput = other.SafeHandle }
                : new ChildCommand("/bin/sh", ["-c", Activation, "sh", .. command])
                {
                    Environment = ChildCommand.EnvironmentWith(new KeyValuePair<string, string>("LISTEN_FDS", "1")),
                    StandardOutput = nothing.SafeFileHandle,
                    Socket = listener.SafeHandle,
                };
            if (!ChildProcess.TryStart(child, out _child))
            {
                throw new IOException($"{child.Name} is being written to");
            }
            _child.Input.Dispose();
            _errors = ChildOutput.FirstOf(4096);
            _listening = _errors.ReadAsync(_child.Errors, CancellationToken.None);
            return connected ?? Connect();
        }
        catch
        {
            connected?.Dispose();
            throw;
        }
    }

    private Socket Connect()
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            // Whoever listens has a place for it: this does not wait.
            socket.Connect(new UnixDomainSocketEndPoint(SocketPath));
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private async Task EndAsync()
    {
        if (_child is { } child)
        {
            await child.DisposeAsync().ConfigureAwait(false);
            _child = null;
            try
            {
                await _listening.ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException)
            {
                // The pipe was closed under it.
            }
        }
        if (_folder is not null)
        {
            Directory.Delete(_folder, recursive: true);
            _folder = null;
        }
    }

    /// <summary>What happened, and how the server ended if it did so by itself.</summary>
    private async Task<NbdClientException> FailedAsync(Exception cause)
    {
        string name = Path.GetFileName(command[0]);
        if (_child is not { } child)
        {
            return new NbdClientException(NbdClientError.ConnectFailed, $"the server {name} cannot be started: {cause.Message}", cause);
        }
        // The connection is closed a moment before the process is gone.
        await Task.WhenAny(child.Ended, Task.Delay(TimeSpan.FromSeconds(1))).ConfigureAwait(false);
        if (!child.Ended.IsCompleted)
        {
            return new NbdClientException(NbdClientError.ConnectFailed, $"the server {name} does not talk: {cause.Message}", cause);
        }
        await Task.WhenAny(_listening, Task.Delay(TimeSpan.FromSeconds(1))).ConfigureAwait(false);
        string ending = new ChildResult(await child.Ended.ConfigureAwait(false), _errors).Ending();
        return new NbdClientException(
            NbdClientError.ConnectFailed, $"the server {name} has ended ({ending}): {_errors.FirstLine()}", cause);
    }
}
