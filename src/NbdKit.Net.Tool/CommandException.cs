namespace NbdKit.Tool;

/// <summary>Ends the command with status 1 and a message that needs no stack trace.</summary>
internal sealed class CommandException(string message, Exception? innerException = null)
    : Exception(message, innerException);
