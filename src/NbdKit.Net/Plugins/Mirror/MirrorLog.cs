using Microsoft.Extensions.Logging;

namespace NbdKit.Plugins.Mirror;

internal static partial class MirrorLog
{
    [LoggerMessage(70, LogLevel.Error, "The member {Member} of a mirror failed and is left alone; {Left} in sync are left")]
    public static partial void MemberFailed(ILogger logger, string member, int left, Exception exception);

    [LoggerMessage(71, LogLevel.Information, "The member {Member} of a mirror is in sync")]
    public static partial void MemberInSync(ILogger logger, string member);

    [LoggerMessage(72, LogLevel.Error, "A hook of the host threw")]
    public static partial void HookFailed(ILogger logger, Exception exception);
}
