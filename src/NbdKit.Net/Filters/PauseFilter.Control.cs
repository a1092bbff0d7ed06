using System.Net.Sockets;
using NbdKit.Server;

namespace NbdKit.Filters;

// The control socket.
public sealed partial class PauseFilter
{
    private static readonly TimeSpan BackOff = TimeSpan.FromMilliseconds(100);

    private readonly CancellationTokenSource _stopping = new();
    private readonly List<Task> _controllers = [];
    private Socket? _listener;
    private Task _accepting = Task.CompletedTask;

    private void Listen(string path)
    {
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            listener.Bind(new UnixDomainSocketEndPoint(path));
            if (!OperatingSystem.IsWindows())
            {
                // Nobody can connect before it listens.
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            }
            listener.Listen();
        }
        catch
        {
            listener.Dispose();
            throw;
        }
        _listener = listener;
        _accepting = AcceptAsync(listener);
    }

    private async ValueTask StopListeningAsync()
    {
        if (_listener is null)
        {
            return;
        }
        await _stopping.CancelAsync().ConfigureAwait(false);
        _listener.Dispose();
        await _accepting.ConfigureAwait(false);
        await Task.WhenAll(_controllers).ConfigureAwait(false);
        File.Delete(ControlPath!);
    }

    private async Task AcceptAsync(Socket listener)
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                Socket client = await listener.AcceptAsync(_stopping.Token).ConfigureAwait(false);
                _controllers.RemoveAll(controller => controller.IsCompleted);
                _controllers.Add(ObeyAsync(client));
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
            {
                if (!_stopping.IsCancellationRequested)
                {
                    Log.AcceptFailed(_logger, e);
                    await Task.Delay(BackOff, TimeProvider.System, _stopping.Token)
                        .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                }
            }
        }
    }

    private async Task ObeyAsync(Socket client)
    {
        using Socket socket = client;
        byte[] command = new byte[1];
        try
        {
            while (await socket.ReceiveAsync(command, SocketFlags.None, _stopping.Token).ConfigureAwait(false) > 0)
            {
                command[0] = await ObeyAsync(command[0]).ConfigureAwait(false);
                await socket.SendAsync(command, SocketFlags.None, _stopping.Token).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            // Whoever controlled is gone, or the chain has ended. A pause stays as it is.
        }
    }

    private async ValueTask<byte> ObeyAsync(byte command)
    {
        switch (command)
        {
            case (byte)'p':
                try
                {
                    await PauseAsync(_stopping.Token).ConfigureAwait(false);
                    return (byte)'P';
                }
                catch (Exception e) when (e is not OperationCanceledException)
                {
                    Log.LayerFailed(_logger, Name, "pause", e);
                    return (byte)'X';
                }
            case (byte)'r':
                Resume();
                return (byte)'R';
            default:
                return (byte)'X';
        }
    }
}
